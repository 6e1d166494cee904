// A membership that an etcd keeps, for all members and tools. Keys, under the prefix of the
// settings: "state", the text of the cluster's state, and "ready/REVISION/MEMBER", which the next
// proposal removes.
//
// A thread of its own watches the state: it reads it, follows its changes, asks every
// kEtcdHeartbeat whether it has the newest, and begins again, with growing waits, when etcd does
// not answer or has compacted what it missed. A state that cannot be read, is of another cluster
// than one seen before, or older than one told before (an etcd restored from an old copy) is not
// told; health() says so.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "memnode/cluster/etcd_client.h"
#include "memnode/cluster/etcd_config.h"
#include "memnode/cluster/membership.h"

namespace engram::memnode {

inline constexpr Nanos kEtcdHeartbeat = std::chrono::seconds(2);
// While it is watched, health() is bad after that: two heartbeats that were not answered.
inline constexpr Nanos kEtcdSilenceMax = 2 * kEtcdHeartbeat + 2 * kEtcdTimeout;

class EtcdMembership final : public Membership {
 public:
  // Of a valid config that has endpoints. Contacts no server: an etcd that is away at start is
  // found later. Errors name the file.
  static Result<std::unique_ptr<EtcdMembership>> Make(const EtcdConfig& config,
                                                      Nanos timeout = kEtcdTimeout);
  // Does not wait for etcd; does for a `told` that runs.
  ~EtcdMembership() override;

  // Besides Membership's: DATA_LOSS, what is under the key is no state; FAILED_PRECONDITION, it is
  // another cluster's, or etcd refuses this user.
  Result<ClusterState> Read() override;
  Status Watch(Told told) override;
  // Where there is no state yet: revision 1, with or without a change that begins. The state in
  // force, proposed again, is OK.
  Status Propose(const ClusterState& after) override;
  Status TellReady(uint64_t revision, const std::string& member) override;
  // Of the newest change only.
  Result<std::vector<std::string>> Ready(uint64_t revision) override;
  bool shared() const override { return true; }
  Status health() const override;

 private:
  struct Found {
    std::optional<ClusterState> state;  // none: there is none yet
    int64_t mod_revision = 0;
  };

  EtcdMembership(const std::string& prefix, std::unique_ptr<EtcdClient> client);
  Result<Found> Find();
  Result<ClusterState> Parse(const EtcdValue& value) const;
  // Whether it is of the cluster seen first.
  Status CheckCluster(const ClusterState& state);
  void RememberCluster(const ClusterState& state);
  std::string ReadyPrefix(uint64_t revision) const;
  // Remembers whether etcd answered; returns what it was given.
  Status Note(Status outcome);

  void Run_on_watch();
  Status Follow_on_watch();
  // Takes the state in force; etcd's revision at that moment.
  Result<int64_t> Read_on_watch();
  void Take_on_watch(const EtcdValue* value);  // null: there is none
  Status Accept_on_watch(const EtcdValue& value);

  const std::string state_key_;
  const std::string ready_prefix_;
  const std::unique_ptr<EtcdClient> client_;

  mutable std::mutex mutex_;  // guards the next five
  std::string cluster_;       // of the first state seen; empty: none yet
  bool watched_ = false;
  TimePoint answered_;  // when etcd did last, or since when it is watched
  Status silence_;      // why it did not; ok: it did
  Status problem_;      // of the state that it has

  std::stop_source stop_;
  // The watch thread's.
  Told told_;
  std::optional<ClusterState> last_;  // told
  bool lost_ = false;                 // etcd, which is in the log
  int64_t mod_revision_ = 0;          // etcd's, of the state seen last; 0: it had none
  std::thread watch_;                 // last: uses all of the above
};

}  // namespace engram::memnode
