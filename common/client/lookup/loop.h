// The lookup client's loop: a thread that alone drives the transport and watches the control
// connections. Callers hand it planned steps; it sends their requests, places the rows that come
// back, and ends what fails or is late.
//
// A node is away until Attach and Open; a node that is lost is away again: its requests end at once
// with UNAVAILABLE, and on_lost is told, so that it is connected to anew (redialer.h). Answers of
// the old connection find no request: request ids never come again.
//
// Where rows have several owners, what a node does not bring is asked for elsewhere: rows of a
// request that failed (failover), and those of a request that is late, as well (hedge), within a
// budget. A node that was silent while a request was late is a suspect and is asked last; one that
// stays silent counts as stopped, and all that it was asked for is asked of others.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/cluster_view.h"
#include "common/client/lookup/id_ring.h"
#include "common/client/lookup/late_answers.h"
#include "common/client/lookup/node_health.h"
#include "common/client/lookup/node_paths.h"
#include "common/client/lookup/requests.h"
#include "common/client/lookup/step.h"
#include "common/net/control/control.h"
#include "common/net/transport.h"
#include "common/net/wire.h"

namespace engram::client {

// A connection to one memory node, for the loop to take over.
struct NodeConnection {
  std::unique_ptr<net::ControlClient> control;
  std::unique_ptr<net::DialedPeer> data;
  NodePaths paths;  // but for one-sided reads, which the loop opens
};

class LookupLoop : private net::TransportHandler {
 public:
  struct Options {
    uint32_t requests_max = 1024;           // posted and not answered; at most 65535
    Nanos spin = Nanos::zero();             // while requests are in flight, before sleeping
    Nanos probe_timeout = Nanos::zero();    // of probes (node_health.h); zero: none are sent
    Nanos hedge = Nanos::zero();            // a request is late after so long; zero: by itself
    std::function<void(uint32_t)> on_lost;  // a node that was open; on the loop's thread
    std::function<void(uint32_t)> on_later_epoch;  // that a node told; on the loop's thread
  };
  // Starts its thread; where that fails `started` says why, and nothing may be posted. `transport`
  // is the loop's from now on.
  LookupLoop(Options options, std::shared_ptr<const PlanContext> context, uint32_t epoch,
             std::unique_ptr<net::Transport> transport, const Clock& clock);
  // Ends every request under way with CANCELLED and joins.
  ~LookupLoop() override;
  const Status& started() const { return started_; }

  // All of these from any thread but the loop's.

  // The nodes as they are now.
  std::shared_ptr<const ClusterView> view() const;
  // What a row costs at each node by `view`: mapped memory first, then the node with the fewest
  // rows under way; a suspect last, a node that is gone or skipped never.
  NodeCosts Costs(const ClusterView& view) const;
  bool IsSuspect(const NodeView& node) const { return node.suspect_until > clock_.Now(); }
  // Of one node only.
  NodeCosts CostsOfOnly(uint32_t node) const;
  // Sends what `view`'s paths need sent and copies what they have in mapped memory, in the calling
  // thread. RESOURCE_EXHAUSTED over requests_max, UNAVAILABLE when a node the step needs is gone or
  // skipped; then nothing is sent.
  Status Post(const StepRef& step, const ClusterView& view);
  // The rows of one node over one of its paths, waited for; also from a node that is not open.
  // Not counted.
  Status Ask(uint32_t node, Path path, const LayerLookup& lookup, TimePoint deadline);

  // Takes over a connection to a node that is away. Its rows are for Ask only, until Open.
  Status Attach(uint32_t node, NodeConnection connection);
  // The attached node serves lookups from now on. UNAVAILABLE: it was lost meanwhile.
  Status Open(uint32_t node, const PathCosts& costs);
  // A node that is not open could not be connected to, or did not prove itself: gives the
  // connection up, and tells why as the node's status.
  void GiveUp(uint32_t node, const Status& why);

  std::shared_ptr<StepPool> steps() const { return steps_; }
  std::span<NodeCounters> counters() { return counters_; }
  uint32_t requests_under_way() const { return requests_under_way_.load(); }
  struct Detours {
    uint64_t failovers = 0;  // requests to another owner after the one asked first had failed
    uint64_t hedges_sent = 0;
    uint64_t hedges_won = 0;  // brought rows before the owner asked first
  };
  Detours detours() const { return {failovers_.load(), hedges_sent_.load(), hedges_won_.load()}; }
  uint64_t reconnects() const { return reconnects_.load(); }       // of nodes that had been lost
  const net::Transport& transport() const { return *transport_; }  // Dial, name, address, settings
  // Messages that belonged to no request of the sender's: late, repeated or unreadable.
  uint64_t messages_dropped() const { return messages_dropped_.load(); }

 private:
  // One-sided reads of some rows of a request into a buffer.
  struct ReadOperation {
    LookupLoop* loop = nullptr;
    net::SendBuffer* buffer = nullptr;
    uint64_t request_id = 0;
    Section section;
    uint32_t first = 0;
    uint32_t count = 0;
  };
  // What a node is asked to see whether it answers.
  struct Probe {
    uint32_t layer_index = 0;
    uint64_t row = 0;
    std::vector<std::byte> bytes;  // the row; empty: the node has none
    Nanos timeout = Nanos::zero();
  };
  struct Node {
    std::string label;  // "m0 (127.0.0.1:7400)"
    // The connection; null and 0 while the node is away.
    std::unique_ptr<net::ControlClient> control;
    net::PeerId peer = 0;
    bool open = false;
    bool leaving = false;  // it takes no new requests
    NodeView view;
    // What waits to be sent, by priority, and how much is there already.
    std::array<IdRing, net::kPriorityCount> waiting;  // request ids, ended ones too
    uint32_t under_way = 0;
    uint32_t window = 0;
    NodeHealth health;
    LateAnswers late;
    Probe probe;
    Status lost;  // why the node was lost
  };

  void OnMessage(net::PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override;
  void OnPeerLost(net::PeerId peer, const Status& why) override;

  void Run();
  int RunOnce(TimePoint now);
  void Sleep(TimePoint now, TimePoint until);
  void Shutdown();
  // Runs `task` on the loop's thread and waits for it. CANCELLED when the loop ends first.
  Status OnLoop(std::function<Status()> task);
  void RunTasks();
  void PublishView();

  Status Unusable(const NodeView& node, const NodeRequest& request, Purpose purpose) const;
  Status Admit(const StepRef& step, uint32_t requests);
  void TakePosts();
  Request& Take(const StepRef& step, const NodeRequest& what);
  void Queue(Request& request);
  void SendQueued();
  bool SendFirst(Node& node, IdRing& waiting);
  Status SendLookup(Request& request);
  Result<bool> StartReads(Request& request);
  void OnRead(ReadOperation* operation, const Status& status);
  net::SendBuffer* TakeBuffer();
  bool HasBuffer() const;
  void OnRows(uint32_t node, std::span<const std::byte> header, std::span<const std::byte> body);
  Status PlaceChunk(Request& request, std::span<const std::byte> header,
                    std::span<const std::byte> body);
  void OnError(uint32_t node, std::span<const std::byte> header, std::span<const std::byte> body);
  void Expire(TimePoint now);
  void CheckControls(TimePoint now);
  void HearEpoch(uint32_t epoch);
  void TellDamage();
  void LoseNode(uint32_t node, const Status& why);
  void Leave(uint32_t node, const Status& why);
  void ChooseProbes();
  bool NeedsProbes(const Node& node) const;
  void SendProbes(TimePoint now);
  void SendProbe(uint32_t node, TimePoint now);
  void ProbeEnded(uint32_t node, const Status& why);
  void LookupMissed(uint32_t node, TimePoint sent);
  void TellHealth(uint32_t node);
  NodeCounters& CountersOf(const Step& step, uint32_t node) {
    return step.purpose() == Purpose::kCaller ? counters_[node] : own_counters_;
  }
  void Uncount(Request& request);
  void End(Request& request, Status why);  // ok: answered in full
  bool AskElsewhere(const StepRef& step, const Request& instead, Request* beside);
  void TakeFailures();
  Nanos LateAfter(const Node& node) const {
    return options_.hedge > Nanos::zero() ? options_.hedge : node.late.limit();
  }
  void LookAfter(Request& request, Nanos silence);
  void LookAtLate(Request& request, TimePoint now);
  void Hedge(Request& request);
  void HedgeAllOf(uint32_t node);
  void Suspect(uint32_t node, TimePoint until);

  const Options options_;
  const Clock& clock_;
  const std::shared_ptr<const PlanContext> context_;  // shared with the steps
  const uint32_t epoch_;
  const std::shared_ptr<StepPool> steps_;
  std::vector<NodeCounters> counters_;
  NodeCounters own_counters_;  // of probes and proofs; not told
  std::atomic<uint64_t> messages_dropped_ = 0;
  std::atomic<uint64_t> failovers_ = 0, hedges_sent_ = 0, hedges_won_ = 0, reconnects_ = 0;
  std::atomic<uint32_t> requests_under_way_ = 0;  // posted and not ended

  mutable std::mutex mutex_;  // guards the next five
  std::shared_ptr<const ClusterView> view_;
  std::vector<StepRef> posts_;  // bounded by requests_under_way_
  // What a caller could not copy out of a node's mapped memory, for the loop to ask for elsewhere.
  struct LocalFailure {
    StepRef step;
    const NodeRequest* what = nullptr;
    Status why;
  };
  std::vector<LocalFailure> failures_;
  std::deque<std::packaged_task<Status()>> tasks_;
  bool ended_ = false;                   // no task is run any more
  std::atomic<bool> has_posts_ = false;  // or tasks
  std::atomic<bool> sleeping_ = false;
  std::atomic<bool> stopping_ = false;

  // The loop's own.
  std::vector<Node> nodes_;
  std::unordered_map<net::PeerId, uint32_t> node_of_peer_;
  RequestTable requests_;
  size_t queued_ = 0;  // in all nodes' queues together
  TimePoint now_;      // when the round began
  TimePoint next_probe_;
  double hedges_allowed_ = kHedgesAtOnce;
  uint32_t told_epoch_ = 0;  // the latest that on_later_epoch was told of
  TimePoint next_deadline_ = TimePoint::max();
  TimePoint next_control_check_;
  TimePoint last_event_;
  std::vector<std::byte> header_;  // scratch of SendLookup
  std::vector<net::LookupLayer> wire_layers_;
  std::vector<net::ReadPiece> pieces_;  // scratch of StartReads
  std::vector<StepRef> taken_;          // scratch of TakePosts
  std::vector<LocalFailure> taken_failures_;

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
