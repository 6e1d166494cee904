// A member's part in changes of the cluster's map: it follows the state that the membership keeps,
// gets what it needs for the next map, says so, and goes over when that map is in force.
//
// A failed step is tried again every second, until it succeeds or the state goes on. Where the
// keeper of the state reaches all members (etcd), the member that finds all of them ready proposes
// the end of the change; else the tool that began it does.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/io/json.h"
#include "common/table/placement.h"
#include "memnode/cluster/cluster_state.h"
#include "memnode/cluster/membership.h"

namespace engram::memnode {

// What a node does for it, on the member's thread.
class MapFollower {
 public:
  virtual ~MapFollower() = default;
  // Gets everything that is needed to serve by `next`, beside what is served by `now`. May take
  // long; CANCELLED soon after `cancel` was set.
  virtual Status Prepare(const table::ClusterMap& now, const table::ClusterMap& next,
                         const std::atomic<bool>& cancel) = 0;
  // The map that was prepared is in force: sessions from now on read by it.
  virtual Status GoOver(const table::ClusterMap& map) = 0;
  // What was prepared is not needed.
  virtual void Forget() = 0;
  // Ends the sessions that read by earlier maps.
  virtual void EndOldSessions() = 0;
};

class ClusterMember {
 public:
  struct Options {
    std::string member;
    Nanos linger = std::chrono::seconds(30);  // of sessions that read by an earlier map
    // Asked when a change is to begin, on the thread that calls Propose: why it may not begin now.
    std::function<Status()> may_begin = nullptr;
    // Told of each state, before any work for it, in order; on the membership's thread or
    // Propose's. May wait for a disk.
    std::function<void(const ClusterState&)> on_state = nullptr;
  };
  // `now` is served already. `membership` and `follower` outlive it. RESOURCE_EXHAUSTED: no thread;
  // else Membership::Watch's.
  static Result<std::unique_ptr<ClusterMember>> Start(Membership& membership, MapFollower& follower,
                                                      Options options, ClusterState now);
  ~ClusterMember() { Stop(); }
  // Ends a Prepare under way, and joins: the follower is not called any more.
  void Stop();

  struct View {
    ClusterState state;
    uint32_t epoch = 0;             // served
    std::optional<uint64_t> ready;  // for the change that began with this revision
    std::string problem;            // of the last step that failed and is to be tried again
  };
  // As of now. Never waits for work under way.
  View view() const;

  // A tool's proposal; true: all members hear of it. Errors as Membership::Propose, and
  // may_begin's. A joining member takes over the state of the cluster that adds it.
  Result<bool> Propose(const ClusterState& after);

 private:
  ClusterMember(Membership& membership, MapFollower& follower, Options options, ClusterState now);
  void Told(const ClusterState& state);
  void Run();
  void Step(std::unique_lock<std::mutex>& lock);
  Status Reach(const table::ClusterMap& map, std::unique_lock<std::mutex>& lock);
  Status EndWhenAllAreReady(const ClusterState& state);

  Membership& membership_;
  MapFollower& follower_;
  const Options options_;
  std::atomic<bool> cancel_ = false;  // the Prepare under way

  std::mutex telling_mutex_;  // one state after the other; taken before mutex_
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  ClusterState state_;
  table::ClusterMap served_;
  std::optional<table::ClusterMap> prepared_;
  std::optional<table::ClusterMap> preparing_;
  std::optional<uint64_t> ready_;
  std::string problem_;
  TimePoint linger_until_ = TimePoint::max();
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace engram::memnode
