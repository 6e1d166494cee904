// RowService: answers lookups out of memory. One data thread owns the transport and gathers chunks
// of rows straight into registered send buffers, so that packing one chunk overlaps sending the one
// before. A node runs one or more services, each with clients of its own; a client reads the
// version of the tables that its session was opened on.
//
// Reader threads fetch rows that are not in memory from the store (cold_staging.h); the data thread
// never waits for a disk, and serves the requests that are ready.
//
// Order: a waiting request of a better priority goes before the next chunk of a worse one; requests
// of one priority take turns of kTurnRows. A client that takes no data holds at most
// peer_buffers_max send buffers, is passed over meanwhile, and cut off after send_stall_max.
//
// Wrong rows are never sent: session, epoch, layer, range and ownership of every id are checked
// before its chunk is copied, and each row carries its own check. After the first requests nothing
// is allocated and no lock is taken to serve one (tests/memnode/node/node_test.cc).
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/net/transport.h"
#include "memnode/serve/request_queue.h"
#include "memnode/serve/send_ring.h"
#include "memnode/serve/service_metrics.h"
#include "memnode/serve/waker.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

struct RowServiceOptions {
  size_t sessions_max = 256;
  size_t window = 16;  // requests one client may have waiting; beyond it they are refused
  size_t send_buffers = 64;
  size_t peer_buffers_max = 4;  // of one client at once; more than 4 gains nothing (pilot)
  Nanos spin = std::chrono::microseconds(50);      // polling before the idle thread sleeps
  Nanos send_stall_max = std::chrono::seconds(1);  // a send takes longer: the client is cut off
  int cpu = -1;                                    // pins the data thread
  // False in benchmarks only, to time everything but the gather: chunks then hold whatever their
  // buffer held, which no client accepts unless told not to check.
  bool gather = true;
};

class RowService : public net::TransportHandler {
 public:
  // `metrics` and `clock` outlive the service.
  static Result<std::unique_ptr<RowService>> Start(std::unique_ptr<net::Transport> transport,
                                                   const RowServiceOptions& options,
                                                   ServiceMetrics& metrics,
                                                   const Clock& clock = Clock::Real());
  ~RowService() override;  // stops at once; Drain first for a clean end

  // Of the transport; constant.
  const std::string& transport_name() const { return name_; }
  const std::string& address() const { return address_; }
  const std::string& settings() const { return settings_; }

  // The rest from any thread.
  // Opens a session on these tables for the client whose transport has this address. `opened` runs
  // on the data thread once the session is there, or when it is refused, maybe before this returns;
  // not if the service ends first. RESOURCE_EXHAUSTED over sessions_max, INVALID_ARGUMENT when a
  // row does not fit a message, CANCELLED when draining.
  using Opened = std::function<void(Result<uint64_t> session)>;
  void OpenSession(const std::string& address, std::shared_ptr<const ServedTables> tables,
                   Opened opened);
  void CloseSession(uint64_t session);
  // What is queued is answered; what comes later is refused with CANCELLED.
  void Drain() { draining_ = true; }
  // Those that are being opened, too.
  size_t session_count() const { return session_count_ + opening_count_; }
  // How long ago the data thread last went round its loop, which it does every 100 ms at least
  // unless something holds it.
  Nanos SinceLastRound() const {
    return Clock::Real().Now() - TimePoint(Nanos(last_round_.load(std::memory_order_relaxed)));
  }

 private:
  struct Session {
    uint64_t id = 0;
    size_t sends_under_way = 0;
    size_t queued = 0;
    std::shared_ptr<const ServedTables> tables;
    uint32_t chunk_rows = 0;
  };
  struct PendingError {
    net::PeerId peer = 0;
    uint64_t request_id = 0;
    Status why;
  };

  RowService(std::unique_ptr<net::Transport> transport, const RowServiceOptions& options,
             ServiceMetrics& metrics, const Clock& clock);
  void OnMessage(net::PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override;
  void OnPeerLost(net::PeerId peer, const Status& why) override;

  // The data thread.
  void Run();
  void RunPosted();
  Status OpenSessionOnLoop(uint64_t session, const std::string& address,
                           std::shared_ptr<const ServedTables> tables);
  void CloseSessionOnLoop(uint64_t session);
  void ForgetPeer(net::PeerId peer);
  void CountSessions();
  Status Admit(const net::LookupView& lookup, net::PeerId from) const;
  void Refuse(net::PeerId peer, uint64_t request_id, Status why);
  void SendErrors();
  bool ServeChunk();
  bool CanSend(size_t priority, const Session& session, size_t count = 1) const;
  Result<bool> Ready(Request& request, const Session& session);
  Status Advance(Request& request, Session& session);
  Result<bool> SendChunk(Request& request, Session& session, const net::LookupLayer& layer,
                         uint32_t count, TimePoint now, bool more);
  bool AnotherFollows(const Request& request, const Session& session, TimePoint now) const;
  void PrefetchLater(const Request& request, const Session& session);
  Status FindRows(const Request& request, const Session& session, const net::LookupLayer& layer,
                  size_t first, uint32_t count);
  void End(size_t priority, const Status& served);
  void Pop(size_t priority);
  Status Send(Session& session, std::span<const std::byte> header, SendRing::Slot* slot,
              size_t body_bytes, bool more = false);
  void OnSent(SendRing::Slot* slot);
  void CutOffStuck();
  void Post(std::function<void()> task);

  const RowServiceOptions options_;
  ServiceMetrics& metrics_;
  const Clock& clock_;
  std::unique_ptr<net::Transport> transport_;
  const std::string name_, address_, settings_;

  // Data thread only.
  SendRing ring_;  // dies before transport_
  RequestQueue queue_;
  std::deque<PendingError> errors_;
  std::unordered_map<net::PeerId, Session> sessions_;
  std::unordered_map<uint64_t, net::PeerId> peer_of_session_;
  std::vector<uint64_t> rows_;               // scratch: a chunk's ids
  std::vector<const std::byte*> addresses_;  // scratch: where they lie
  std::vector<std::byte> computed_;          // scratch: rows made for a chunk
  TimePoint next_stall_check_;
  double sessions_told_ = 0;      // to the gauge all services share
  std::shared_ptr<Waker> waker_;  // of this data thread, for the threads that read rows for it

  std::atomic<bool> stop_ = false;
  std::atomic<bool> draining_ = false;
  std::atomic<size_t> session_count_ = 0;
  std::atomic<size_t> opening_count_ = 0;
  std::atomic<int64_t> last_round_;  // nanoseconds of the monotonic clock
  std::atomic<bool> has_posted_ = false;
  std::mutex posted_mutex_;
  std::vector<std::function<void()>> posted_;  // guarded by posted_mutex_
  std::thread thread_;
};

}  // namespace engram::memnode
