// The lookup client's IO thread: it alone drives the transport and watches the control connections.
// Callers hand it planned steps; it sends their requests, places the rows that come back, and ends
// what fails or is late.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup_plan.h"
#include "common/net/control.h"
#include "common/net/transport.h"
#include "common/net/wire.h"

namespace engram::client {

// One memory node as the client knows it.
struct NodeLink {
  std::string label;  // "m0 (127.0.0.1:7400)"
  net::PeerId peer = 0;
  std::unique_ptr<net::ControlClient> control;
};

class LookupLoop : private net::TransportHandler {
 public:
  struct Options {
    uint32_t requests_max = 1024;  // posted and not answered
    Nanos spin = Nanos::zero();    // while requests are in flight, before sleeping
    uint32_t epoch = 1;
  };
  // `transport` is connected to every node's peer and is the loop's from now on.
  LookupLoop(Options options, std::unique_ptr<net::Transport> transport,
             std::vector<NodeLink> nodes, const Clock& clock);
  // Ends every request under way with CANCELLED and joins.
  ~LookupLoop() override;

  // Any thread. RESOURCE_EXHAUSTED over requests_max, UNAVAILABLE when a node it needs is gone;
  // then nothing is sent.
  Status Post(std::shared_ptr<Step> step);
  const NodeCounters& counters(size_t node) const { return counters_[node]; }
  // Only while nothing is in flight.
  void ResetCounters();
  // Messages that belonged to no request of the sender's: late, repeated or unreadable.
  uint64_t messages_dropped() const { return messages_dropped_.load(); }

 private:
  // `step` is shared with the caller's ticket: either may be the last to need it.
  struct Request {
    std::shared_ptr<Step> step;
    uint32_t index = 0;         // into step->requests()
    uint32_t rows_missing = 0;  // of this request
    bool counted = true;        // in requests_under_way_
    const NodeRequest& plan() const { return step->requests()[index]; }
  };

  void OnMessage(net::PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override;
  void OnPeerLost(net::PeerId peer, const Status& why) override;

  void Run();
  void TakePostsOnLoop();
  void SendQueuedOnLoop();
  Status SendOnLoop(uint64_t request_id, const Request& request);
  net::SendBuffer* TakeBufferOnLoop();
  void OnRowsOnLoop(uint32_t node, std::span<const std::byte> header,
                    std::span<const std::byte> body);
  Status PlaceOnLoop(Request& request, std::span<const std::byte> header,
                     std::span<const std::byte> body);
  void OnErrorOnLoop(uint32_t node, std::span<const std::byte> header,
                     std::span<const std::byte> body);
  void ExpireOnLoop(TimePoint now);
  void CheckControlsOnLoop(TimePoint now);
  void LoseNodeOnLoop(uint32_t node, const Status& why);
  void UncountOnLoop(Request& request);
  void EndOnLoop(uint64_t request_id, const Status& why);  // ok: answered in full
  void SleepOnLoop(TimePoint now);
  void DrainSendsOnLoop();

  const Options options_;
  const Clock& clock_;
  const std::vector<NodeLink> nodes_;
  std::vector<NodeCounters> counters_;
  std::atomic<uint64_t> messages_dropped_ = 0;
  std::atomic<uint32_t> requests_under_way_ = 0;  // posted and not ended

  std::mutex mutex_;                          // guards the next two
  std::vector<std::shared_ptr<Step>> posts_;  // bounded by requests_under_way_
  std::vector<Status> gone_;                  // per node: why it is gone, or ok
  std::atomic<bool> stopping_ = false;

  // The loop's own.
  std::unordered_map<uint64_t, Request> requests_;  // by id
  std::deque<uint64_t> to_send_;                    // ids waiting for a send buffer
  uint64_t next_request_id_ = 1;
  TimePoint next_deadline_ = TimePoint::max();
  TimePoint next_control_check_;
  TimePoint last_event_;
  std::vector<std::byte> header_;  // scratch of SendOnLoop
  std::vector<net::LookupLayer> wire_layers_;
  std::vector<std::shared_ptr<Step>> taken_;  // scratch of TakePostsOnLoop

  // Destroyed in this order from the end: the thread has been joined, buffers go before their
  // transport.
  std::unique_ptr<net::Transport> transport_;
  std::vector<std::unique_ptr<net::SendBuffer>> buffers_;
  std::vector<net::SendBuffer*> free_buffers_;
  std::thread thread_;
};

}  // namespace engram::client
