// The lookup client's loop: it alone drives the transport and watches the control connections.
// Callers hand it planned steps; it sends their requests, places the rows that come back, and ends
// what fails or is late. It runs on a thread of its own, or on the caller's (caller_driven).
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/id_ring.h"
#include "common/client/lookup/local_gather.h"
#include "common/client/lookup/node_health.h"
#include "common/client/lookup/node_paths.h"
#include "common/client/lookup/plan.h"
#include "common/client/lookup/step_pool.h"
#include "common/net/control/control.h"
#include "common/net/transport.h"
#include "common/net/wire.h"

namespace engram::client {

// One memory node as the client knows it.
struct NodeLink {
  std::string label;  // "m0 (127.0.0.1:7400)"
  net::PeerId peer = 0;
  std::unique_ptr<net::ControlClient> control;
  NodePaths paths;
};

class LookupLoop : private net::TransportHandler {
 public:
  struct Options {
    uint32_t requests_max = 1024;  // posted and not answered; at most 65535
    Nanos spin = Nanos::zero();    // while requests are in flight, before sleeping
    uint32_t epoch = 1;
    bool caller_driven = false;  // no thread: Post, Drive and DriveUntil from one thread
  };
  // `transport` is connected to every node's peer and is the loop's from now on. `damage`: rows
  // that came damaged, of which it tells their nodes. Starts its thread; where that fails `started`
  // says why, and nothing may be posted.
  LookupLoop(Options options, std::unique_ptr<net::Transport> transport,
             std::vector<NodeLink> nodes, std::shared_ptr<DamageReports> damage,
             const Clock& clock);
  // Ends every request under way with CANCELLED and joins.
  ~LookupLoop() override;
  const Status& started() const { return started_; }

  // Any thread. RESOURCE_EXHAUSTED over requests_max, UNAVAILABLE when a node it needs is gone or
  // skipped; then nothing is sent.
  Status Post(const StepRef& step);
  // Whether a step of so many rows would take the local path at every node.
  bool AllLocal(size_t rows) const;
  // The rows of such a step, in the caller's thread; any thread. UNAVAILABLE when a node is gone.
  Status GatherHere(const PlanContext& context, std::span<const LayerLookup> layers);
  // Caller-driven only: one round without blocking.
  int Drive() { return RunOnce(clock_.Now()); }
  // Caller-driven: rounds until the layer is done or late. Else nothing.
  void DriveUntil(const Step& step, uint32_t layer_index);
  bool caller_driven() const { return options_.caller_driven; }

  // Once, while nothing is in flight, not caller-driven: from now on every node that has rows is
  // probed, and one that does not answer is skipped (node_health.h).
  void WatchNodes(std::shared_ptr<const PlanContext> context, Nanos probe_timeout);
  // Any thread. Ok while the node is there and, as far as it is watched, answers; else why not.
  Status NodeStatus(size_t node) const;

  // Only while nothing is in flight.
  NodePaths& paths(size_t node) { return nodes_[node].paths; }
  void ResetCounters();
  size_t node_count() const { return nodes_.size(); }
  const NodeCounters& counters(size_t node) const { return counters_[node]; }
  // Messages that belonged to no request of the sender's: late, repeated or unreadable.
  uint64_t messages_dropped() const { return messages_dropped_.load(); }

 private:
  static constexpr size_t kPriorityCount = net::kPriorityCount;

  // `step` is shared with the caller's ticket: either may be the last to need it.
  struct Request {
    uint64_t id = 0;  // 0: the slot is free; else its low 16 bits are the slot
    StepRef step;
    uint32_t index = 0;         // into step->requests()
    uint32_t rows_missing = 0;  // of this request
    bool sent = false;          // counts in its node's window
    bool counted = true;        // in requests_under_way_
    TimePoint sent_at;          // the round it was sent in
    // One-sided: the next rows to read.
    uint32_t section = 0;
    uint32_t first = 0;
    const NodeRequest& plan() const { return step->requests()[index]; }
  };
  // One-sided reads of some rows of a request into a buffer.
  struct ReadOperation {
    LookupLoop* loop = nullptr;
    net::SendBuffer* buffer = nullptr;
    uint64_t request_id = 0;
    Section section;
    uint32_t first = 0;
    uint32_t count = 0;
  };
  // What waits to be sent to a node, by priority, and how much is there already.
  struct NodeQueue {
    std::array<IdRing, kPriorityCount> waiting;  // request ids, ended ones too
    uint32_t under_way = 0;
    uint32_t window = 0;
  };

  // What a node is asked to see whether it answers.
  struct Probe {
    uint32_t layer_index = 0;
    uint64_t row = 0;
    std::vector<std::byte> bytes;  // the row; empty: the node has none
    Nanos timeout = Nanos::zero();
  };

  void OnMessage(net::PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override;
  void OnPeerLost(net::PeerId peer, const Status& why) override;

  void Run();
  int RunOnce(TimePoint now);
  void TakePosts();
  void Queue(const StepRef& step, uint32_t index);
  void SendQueued();
  bool SendFirst(NodeQueue& queue, IdRing& waiting);
  Status SendLookup(Request& request);
  Result<bool> StartReads(Request& request);
  void OnRead(ReadOperation* operation, const Status& status);
  Status ServeLocal(Step& step, const NodeRequest& request);
  net::SendBuffer* TakeBuffer();
  bool HasBuffer() const;
  void OnRows(uint32_t node, std::span<const std::byte> header, std::span<const std::byte> body);
  Status PlaceChunk(Request& request, std::span<const std::byte> header,
                    std::span<const std::byte> body);
  void OnError(uint32_t node, std::span<const std::byte> header, std::span<const std::byte> body);
  void Expire(TimePoint now);
  void CheckControls(TimePoint now);
  void TellDamage();
  void LoseNode(uint32_t node, const Status& why);
  Status Gone(uint32_t node);
  void SendProbes(TimePoint now);
  void SendProbe(uint32_t node, TimePoint now);
  void ProbeEnded(uint32_t node, const Status& why);
  void LookupMissed(uint32_t node, TimePoint sent);
  void TellHealth(uint32_t node);
  static Status Skipped(const Status& why);
  NodeCounters& CountersOf(const Step& step, uint32_t node) {
    return step.probe() ? probe_counters_ : counters_[node];
  }
  Request* FindRequest(uint64_t id);
  void Uncount(Request& request);
  void End(Request& request, const Status& why);  // ok: answered in full
  void Sleep(TimePoint now, TimePoint until);
  void Shutdown();

  const Options options_;
  const Clock& clock_;
  const std::shared_ptr<DamageReports> damage_;
  std::vector<NodeLink> nodes_;
  std::unordered_map<net::PeerId, uint32_t> node_of_peer_;
  std::vector<NodeCounters> counters_;
  NodeCounters probe_counters_;  // of all nodes; not told
  std::vector<LocalNode> local_nodes_;
  std::atomic<uint64_t> messages_dropped_ = 0;
  std::atomic<uint32_t> requests_under_way_ = 0;  // posted and not ended

  mutable std::mutex mutex_;    // guards the next four
  std::vector<StepRef> posts_;  // bounded by requests_under_way_
  std::vector<Status> gone_;    // per node: why it is gone, or ok
  std::vector<Status> down_;    // per node: NodeHealth::status
  std::vector<bool> skip_;      // per node: NodeHealth::skipped
  std::atomic<bool> any_gone_ = false;
  std::atomic<bool> has_posts_ = false;
  std::atomic<bool> sleeping_ = false;
  std::atomic<bool> stopping_ = false;

  // Of WatchNodes, then only read but for the probes' bytes, which the loop writes.
  std::atomic<bool> watching_ = false;
  std::shared_ptr<const PlanContext> probe_context_;  // shared with the steps
  std::shared_ptr<StepPool> probe_pool_ = std::make_shared<StepPool>();
  Nanos probe_timeout_ = Nanos::zero();
  std::vector<Probe> probes_;  // per node

  // The loop's own.
  std::vector<NodeHealth> health_;  // per node
  std::vector<bool> skipped_here_;  // per node: as last told
  TimePoint now_;                   // when the round began
  TimePoint next_probe_;
  std::vector<Request> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<NodeQueue> queues_;  // per node
  uint64_t next_sequence_ = 1;
  size_t queued_ = 0;  // in all queues together
  TimePoint next_deadline_ = TimePoint::max();
  TimePoint next_control_check_;
  TimePoint last_event_;
  std::vector<std::byte> header_;  // scratch of SendLookup
  std::vector<net::LookupLayer> wire_layers_;
  std::vector<net::ReadPiece> pieces_;  // scratch of StartReads
  std::vector<StepRef> taken_;          // scratch of TakePosts

  // Destroyed in this order from the end: the thread has been joined, buffers go before their
  // transport.
  std::unique_ptr<net::Transport> transport_;
  std::vector<std::unique_ptr<net::SendBuffer>> buffers_;
  std::vector<net::SendBuffer*> free_buffers_;
  std::vector<std::unique_ptr<ReadOperation>> reads_;
  std::vector<ReadOperation*> free_reads_;
  Status started_;
  std::thread thread_;
};

}  // namespace engram::client
