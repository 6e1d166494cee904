#include "memnode/row_service.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <future>

#include "common/base/crc32c.h"
#include "common/net/wire.h"
#include "common/net/wire_encode.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

// 480 rows of 264 bytes: one segment of the UCX transport, which would otherwise assemble the
// message from several with another copy.
constexpr size_t kChunkBytesMax = 480 * 264;
constexpr size_t kErrorTextMax = 1024;
constexpr size_t kPendingErrorsMax = 1024;
constexpr Nanos kSleepMax = std::chrono::milliseconds(100);
constexpr Nanos kStallSleep = std::chrono::milliseconds(1);
constexpr Nanos kSessionTimeout = std::chrono::seconds(5);
constexpr Nanos kCloseTimeout = std::chrono::seconds(1);

uint32_t ChunkRows(uint32_t row_bytes) {
  const size_t rows = std::clamp<size_t>(kChunkBytesMax / row_bytes, 1, net::kChunkRowsMax);
  return static_cast<uint32_t>(rows);
}

void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  const int error = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
  if (error != 0) {
    obs::LogWarn(
        fmt::format("cannot pin the data thread cpu={} error={}", cpu, std::strerror(error)));
  }
}

// The request id of a message that may be damaged, 0 when it is too short to have one.
uint64_t RequestIdOf(std::span<const std::byte> header) {
  net::LookupHeader lookup;
  if (header.size() < sizeof(lookup)) return 0;
  std::memcpy(&lookup, header.data(), sizeof(lookup));
  return lookup.request_id;
}

// Ids of `bytes` each, unaligned, as 64-bit ones.
template <typename Id>
void Widen(const std::byte* ids, std::span<uint64_t> rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    Id id;
    std::memcpy(&id, ids + i * sizeof(id), sizeof(id));
    rows[i] = id;
  }
}

}  // namespace

RowService::RowService(const Arena& arena, std::unique_ptr<net::Transport> transport,
                       const RowServiceOptions& options, ServiceMetrics& metrics,
                       const Clock& clock)
    : arena_(arena),
      options_(options),
      metrics_(metrics),
      clock_(clock),
      chunk_rows_(ChunkRows(arena.row_bytes())),
      transport_(std::move(transport)),
      name_(transport_->name()),
      address_(transport_->address()),
      settings_(transport_->settings()),
      queue_(options.queued_requests_max) {}

Result<std::unique_ptr<RowService>> RowService::Start(const Arena& arena,
                                                      std::unique_ptr<net::Transport> transport,
                                                      const RowServiceOptions& options,
                                                      ServiceMetrics& metrics, const Clock& clock) {
  auto service = std::unique_ptr<RowService>(
      new RowService(arena, std::move(transport), options, metrics, clock));
  service->transport_->SetHandler(service.get());
  const size_t buffer_bytes =
      std::max<size_t>(size_t{service->chunk_rows_} * arena.row_bytes(), kErrorTextMax);
  if (buffer_bytes > net::kBodyBytesMax) {
    return InvalidArgument(fmt::format("rows of {} bytes, a message holds at most {}",
                                       arena.row_bytes(), net::kBodyBytesMax));
  }
  RETURN_IF_ERROR(
      service->ring_.Allocate(*service->transport_, options.send_buffers, buffer_bytes));
  service->thread_ = std::thread([raw = service.get()] { raw->Run(); });
  return service;
}

RowService::~RowService() {
  if (thread_.joinable()) {
    stop_ = true;
    transport_->WakeUp();
    thread_.join();
  }
  // The data thread is gone: this thread owns the transport now.
  for (const auto& [peer, session] : session_of_peer_) transport_->Disconnect(peer);
  const TimePoint deadline = Clock::Real().Now() + kCloseTimeout;
  while (!ring_.idle() && Clock::Real().Now() < deadline) transport_->Progress();
  ring_.Clear();
  transport_.reset();
}

void RowService::Run() {
  if (options_.cpu >= 0) Pin(options_.cpu);
  TimePoint busy = Clock::Real().Now();
  while (!stop_) {
    RunPosted();
    int events = transport_->Progress();
    SendErrors();
    if (!queue_.empty()) {
      ServeFirst();
      ++events;
    }
    if (events > 0) {
      busy = Clock::Real().Now();
    } else if (Clock::Real().Now() - busy >= options_.spin) {
      transport_->Wait(kSleepMax);
    }
  }
}

void RowService::Post(std::function<void()> task) {
  {
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(task));
    has_posted_ = true;
  }
  transport_->WakeUp();
}

void RowService::RunPosted() {
  if (!has_posted_) return;
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(posted_mutex_);
    tasks.swap(posted_);
    has_posted_ = false;
  }
  for (const auto& task : tasks) task();
}

Result<uint64_t> RowService::OpenSession(const std::string& address) {
  uint64_t session = 0;
  if (::getrandom(&session, sizeof(session), 0) != sizeof(session)) {
    return InternalError("getrandom gave no session id");
  }
  // Shared: the answer may come after we stopped waiting for it.
  const auto answer = std::make_shared<std::promise<Status>>();
  std::future<Status> opened = answer->get_future();
  Post(
      [this, session, address, answer] { answer->set_value(OpenSessionOnLoop(session, address)); });
  if (opened.wait_for(kSessionTimeout) != std::future_status::ready) {
    CloseSession(session);
    return Unavailable("the data thread did not open the session in 5 s");
  }
  RETURN_IF_ERROR(opened.get());
  return session;
}

void RowService::CloseSession(uint64_t session) {
  Post([this, session] { CloseSessionOnLoop(session); });
}

Status RowService::OpenSessionOnLoop(uint64_t session, const std::string& address) {
  if (draining_) return Cancelled("this memory node is shutting down");
  if (session_of_peer_.size() >= options_.sessions_max) {
    return ResourceExhausted(fmt::format("this memory node has limits.sessions_max = {} clients",
                                         options_.sessions_max));
  }
  ASSIGN_OR_RETURN(const net::PeerId peer, transport_->Connect(address));
  session_of_peer_[peer] = session;
  peer_of_session_[session] = peer;
  session_count_ = session_of_peer_.size();
  metrics_.sessions.Set(static_cast<double>(session_count_));
  return OkStatus();
}

void RowService::CloseSessionOnLoop(uint64_t session) {
  const auto found = peer_of_session_.find(session);
  if (found == peer_of_session_.end()) return;  // its peer was lost before
  const net::PeerId peer = found->second;
  ForgetPeer(peer);
  transport_->Disconnect(peer);
}

void RowService::ForgetPeer(net::PeerId peer) {
  const auto found = session_of_peer_.find(peer);
  if (found == session_of_peer_.end()) return;
  peer_of_session_.erase(found->second);
  session_of_peer_.erase(found);
  session_count_ = session_of_peer_.size();
  metrics_.sessions.Set(static_cast<double>(session_count_));
}

void RowService::OnPeerLost(net::PeerId peer, const Status& why) {
  obs::LogInfo(fmt::format("client lost peer={} why={}", peer, why.message()));
  ForgetPeer(peer);
}

Status RowService::Admit(const net::LookupHeader& header, net::PeerId from) const {
  const auto session = session_of_peer_.find(from);
  if (session == session_of_peer_.end() || session->second != header.session) {
    return FailedPrecondition("the lookup's session is not this connection's: say hello again");
  }
  if (header.epoch != options_.epoch) {
    return FailedPrecondition(
        fmt::format("the lookup was split by cluster epoch {}, this memory "
                    "node is at epoch {}: connect again",
                    header.epoch, options_.epoch));
  }
  if (draining_) return Cancelled("this memory node is shutting down");
  if (header.budget_us == 0)
    return DeadlineExceeded("the lookup had no time left when it was sent");
  if (queue_.full()) {
    return ResourceExhausted(fmt::format(
        "{} lookups wait at this memory node (limits.queued_requests_max)", queue_.capacity()));
  }
  return OkStatus();
}

void RowService::OnMessage(net::PeerId from, std::span<const std::byte> header,
                           std::span<const std::byte> body) {
  metrics_.requests.Add();
  auto lookup = net::ParseLookup(header, body);
  const Status admitted = lookup.ok() ? Admit(lookup->header, from) : lookup.status();
  if (!admitted.ok()) return Refuse(from, RequestIdOf(header), admitted);
  Request& request = queue_.Push();
  request.peer = from;
  request.header = lookup->header;
  request.layers.swap(lookup->layers);
  request.ids.assign(lookup->ids.begin(), lookup->ids.end());
  request.arrived = clock_.Now();
  request.deadline = request.arrived + std::chrono::microseconds(request.header.budget_us);
}

void RowService::Refuse(net::PeerId peer, uint64_t request_id, Status why) {
  metrics_.CountError(why.code());
  if (errors_.size() >= kPendingErrorsMax) return metrics_.errors_dropped.Add();
  errors_.push_back({peer, request_id, std::move(why)});
}

void RowService::SendErrors() {
  while (!errors_.empty() && !ring_.empty()) {
    const PendingError error = std::move(errors_.front());
    errors_.pop_front();
    net::LookupErrorHeader header;
    header.request_id = error.request_id;
    header.code = static_cast<int32_t>(error.why.code());
    SendRing::Slot* slot = ring_.Take(error.peer);
    const size_t text_bytes = std::min(error.why.message().size(), kErrorTextMax);
    std::memcpy(slot->buffer->bytes().data(), error.why.message().data(), text_bytes);
    if (!Send(error.peer, net::HeaderBytes(header), slot, text_bytes).ok()) {
      metrics_.errors_dropped.Add();  // the client is gone
    }
  }
}

Status RowService::Send(net::PeerId peer, std::span<const std::byte> header, SendRing::Slot* slot,
                        size_t body_bytes) {
  const Status sent = transport_->Send(peer, header, slot->buffer.get(), body_bytes,
                                       [this, slot](const Status&) { ring_.Release(slot); });
  if (!sent.ok()) ring_.Release(slot);
  return sent;
}

void RowService::ServeFirst() {
  const Request& request = queue_.Front();
  if (session_of_peer_.contains(request.peer)) {
    const Status served = Serve(request);
    const bool peer_lost = !session_of_peer_.contains(request.peer);
    if (!served.ok() && !peer_lost) {
      Refuse(request.peer, request.header.request_id, served);
    }
    const std::chrono::duration<double> took = clock_.Now() - request.arrived;
    if (served.ok()) metrics_.service_seconds.Observe(took.count());
  }
  queue_.Pop();
}

Status RowService::FindRows(const Request& request) {
  const size_t id_bytes = request.header.id_bytes;
  const size_t total = request.ids.size() / id_bytes;
  rows_.resize(total);
  addresses_.resize(total);
  if (id_bytes == sizeof(uint32_t)) {
    Widen<uint32_t>(request.ids.data(), rows_);
  } else {
    Widen<uint64_t>(request.ids.data(), rows_);
  }
  size_t at = 0;
  for (const net::LookupLayer& layer : request.layers) {
    RETURN_IF_ERROR(arena_.Find(layer.layer_index, std::span(rows_).subspan(at, layer.row_count),
                                std::span(addresses_).subspan(at, layer.row_count)));
    at += layer.row_count;
  }
  return OkStatus();
}

Status RowService::Serve(const Request& request) {
  RETURN_IF_ERROR(FindRows(request));
  size_t at = 0;
  for (const net::LookupLayer& layer : request.layers) {
    for (uint32_t first = 0; first < layer.row_count; first += chunk_rows_) {
      const uint32_t count = std::min(chunk_rows_, layer.row_count - first);
      RETURN_IF_ERROR(
          SendChunk(request, layer, first, std::span(addresses_).subspan(at + first, count)));
      transport_->Progress();  // or a long request starves everybody's arrivals
    }
    at += layer.row_count;
  }
  return OkStatus();
}

Status RowService::SendChunk(const Request& request, const net::LookupLayer& layer, uint32_t first,
                             std::span<const std::byte* const> rows) {
  RETURN_IF_ERROR(WaitForBuffer(request));
  if (clock_.Now() >= request.deadline) {
    return DeadlineExceeded(fmt::format("{} us were not enough for {} rows",
                                        request.header.budget_us, addresses_.size()));
  }
  SendRing::Slot* slot = ring_.Take(request.peer);
  const std::span<std::byte> out = slot->buffer->bytes().first(rows.size() * arena_.row_bytes());
  CopyRows(rows, arena_.row_bytes(), out.data());
  net::RowsHeader header;
  header.request_id = request.header.request_id;
  header.layer_index = layer.layer_index;
  header.first = first;
  header.row_count = static_cast<uint32_t>(rows.size());
  header.row_bytes = arena_.row_bytes();
  header.body_crc32c = Crc32c(out);
  RETURN_IF_ERROR(Send(request.peer, net::HeaderBytes(header), slot, out.size()));
  metrics_.rows[layer.layer_index]->Add(static_cast<double>(rows.size()));
  metrics_.bytes.Add(static_cast<double>(out.size()));
  return OkStatus();
}

// Until a send has completed. A client that takes no data holds buffers others need: when nothing
// completes for send_stall_max, the one that has held a buffer longest is cut off.
Status RowService::WaitForBuffer(const Request& request) {
  if (!ring_.empty()) return OkStatus();
  TimePoint moved = clock_.Now();
  uint64_t released = ring_.released();
  while (ring_.empty()) {
    if (stop_) return Cancelled("this memory node is shutting down");
    const bool idle = transport_->Progress() == 0;
    if (!session_of_peer_.contains(request.peer)) return Cancelled("the client is gone");
    const TimePoint now = clock_.Now();
    if (ring_.released() != released) {
      released = ring_.released();
      moved = now;
    } else if (now - moved >= options_.send_stall_max) {
      const net::PeerId stuck = ring_.OldestPeer();
      obs::LogWarn(fmt::format("client takes no data and is cut off peer={}", stuck));
      metrics_.peers_given_up.Add();
      ForgetPeer(stuck);
      transport_->Disconnect(stuck);
      moved = now;
    } else if (idle && now - moved >= options_.spin) {
      transport_->Wait(kStallSleep);
    }
  }
  return OkStatus();
}

}  // namespace engram::memnode
