#include "memnode/serve/row_service.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "common/base/threads.h"
#include "common/net/wire.h"
#include "common/net/wire_encode.h"
#include "common/obs/log.h"
#include "common/table/arena_map.h"
#include "common/table/row_copy.h"
#include "memnode/serve/cold_staging.h"

namespace engram::memnode {
namespace {

// 480 rows of 264 bytes and their checks: one segment of the UCX transport, which would otherwise
// assemble the message from several with another copy.
constexpr size_t kChunkBytesMax = 480 * 268;
// A request gives way to the next of its priority after this many rows: more than a 64-token step
// has, so that usual requests are answered in one go.
constexpr uint32_t kTurnRows = 8 * net::kChunkRowsMax;
// Send buffers that only the best priority may take.
constexpr size_t kReservedBuffers = 1;
constexpr size_t kErrorTextMax = 1024;
constexpr size_t kPendingErrorsMax = 1024;
constexpr Nanos kSleepMax = std::chrono::milliseconds(100);
constexpr Nanos kStallCheckEvery = std::chrono::milliseconds(10);
constexpr Nanos kCloseTimeout = std::chrono::seconds(1);

uint32_t ChunkRows(uint32_t stored_row_bytes) {
  const size_t rows = std::clamp<size_t>(kChunkBytesMax / stored_row_bytes, 1, net::kChunkRowsMax);
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

bool InTime(const Request& request, const net::LookupLayer& layer, TimePoint now) {
  return layer.budget_us == 0 || now < request.arrived + std::chrono::microseconds(layer.budget_us);
}

}  // namespace

RowService::RowService(std::unique_ptr<net::Transport> transport, const RowServiceOptions& options,
                       ServiceMetrics& metrics, const Clock& clock)
    : options_(options),
      metrics_(metrics),
      clock_(clock),
      transport_(std::move(transport)),
      name_(transport_->name()),
      address_(transport_->address()),
      settings_(transport_->settings()),
      queue_(options.sessions_max * options.window),
      rows_(net::kChunkRowsMax),
      addresses_(net::kChunkRowsMax),
      waker_(std::make_shared<Waker>(transport_.get())),
      last_round_(Nanos(Clock::Real().Now().time_since_epoch()).count()) {}

Result<std::unique_ptr<RowService>> RowService::Start(std::unique_ptr<net::Transport> transport,
                                                      const RowServiceOptions& options,
                                                      ServiceMetrics& metrics, const Clock& clock) {
  auto service =
      std::unique_ptr<RowService>(new RowService(std::move(transport), options, metrics, clock));
  service->transport_->SetHandler(service.get());
  RETURN_IF_ERROR(
      service->ring_.Allocate(*service->transport_, options.send_buffers, kChunkBytesMax));
  ASSIGN_OR_RETURN(service->thread_, StartThread("rows", [raw = service.get()] { raw->Run(); }));
  return service;
}

RowService::~RowService() {
  if (thread_.joinable()) {
    stop_ = true;
    transport_->WakeUp();
    thread_.join();
  }
  waker_->Retire();
  // The data thread is gone: this thread owns the transport now.
  for (const auto& [peer, session] : sessions_) transport_->Disconnect(peer);
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
    if (ServeChunk()) ++events;
    const TimePoint now = Clock::Real().Now();
    last_round_.store(Nanos(now.time_since_epoch()).count(), std::memory_order_relaxed);
    if (now >= next_stall_check_) CutOffStuck();
    if (events > 0) {
      busy = now;
    } else if (now - busy >= options_.spin) {
      transport_->Wait(ring_.idle() && queue_.empty() ? kSleepMax : kStallCheckEvery);
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

void RowService::OpenSession(const std::string& address, std::shared_ptr<const ServedTables> tables,
                             Opened opened) {
  if (tables->stored_row_bytes() > kChunkBytesMax) {
    return opened(InvalidArgument(fmt::format("rows of {} bytes, a message holds at most {}",
                                              tables->stored_row_bytes(), kChunkBytesMax)));
  }
  uint64_t session = 0;
  if (::getrandom(&session, sizeof(session), 0) != sizeof(session)) {
    return opened(InternalError("getrandom gave no session id"));
  }
  ++opening_count_;
  Post([this, session, address, opened = std::move(opened), tables = std::move(tables)] {
    const Status status = OpenSessionOnLoop(session, address, tables);
    --opening_count_;
    opened(status.ok() ? Result<uint64_t>(session) : status);
  });
}

void RowService::CloseSession(uint64_t session) {
  Post([this, session] { CloseSessionOnLoop(session); });
}

Status RowService::OpenSessionOnLoop(uint64_t session, const std::string& address,
                                     std::shared_ptr<const ServedTables> tables) {
  if (draining_) return Unavailable("this memory node is shutting down");
  if (sessions_.size() >= options_.sessions_max) {
    return ResourceExhausted(fmt::format("this memory node has limits.sessions_max = {} clients",
                                         options_.sessions_max));
  }
  ASSIGN_OR_RETURN(const net::PeerId peer, transport_->Connect(address));
  const uint32_t chunk_rows = ChunkRows(tables->stored_row_bytes());
  sessions_[peer] = {session, 0, 0, std::move(tables), chunk_rows};
  peer_of_session_[session] = peer;
  CountSessions();
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
  const auto found = sessions_.find(peer);
  if (found == sessions_.end()) return;
  peer_of_session_.erase(found->second.id);
  sessions_.erase(found);
  CountSessions();
}

void RowService::CountSessions() {
  session_count_ = sessions_.size();
  metrics_.sessions.Add(static_cast<double>(session_count_) - sessions_told_);
  sessions_told_ = static_cast<double>(session_count_);
}

void RowService::OnPeerLost(net::PeerId peer, const Status& why) {
  obs::LogInfo(fmt::format("client lost peer={} why={}", peer, why.message()));
  ForgetPeer(peer);
}

Status RowService::Admit(const net::LookupView& lookup, net::PeerId from) const {
  const net::LookupHeader& header = lookup.header;
  const auto session = sessions_.find(from);
  if (session == sessions_.end() || session->second.id != header.session) {
    return FailedPrecondition("the lookup's session is not this connection's: say hello again");
  }
  const uint32_t epoch = session->second.tables->map().epoch;
  if (header.epoch != epoch) {
    return FailedPrecondition(fmt::format(
        "the lookup was split by cluster epoch {}, its session is of epoch {}: connect again",
        header.epoch, epoch));
  }
  const uint32_t last_layer = lookup.layers().back().layer_index;  // they ascend
  const uint32_t layer_count = session->second.tables->layer_count();
  if (last_layer >= layer_count) {
    return OutOfRange(
        fmt::format("Engram layer index {}, the table set has {}", last_layer, layer_count));
  }
  if (draining_) return Cancelled("this memory node is shutting down");
  if (header.budget_us == 0)
    return DeadlineExceeded("the lookup had no time left when it was sent");
  if (session->second.queued >= options_.window) {
    return ResourceExhausted(
        fmt::format("{} lookups of this client wait at this memory node (limits.window)",
                    session->second.queued));
  }
  return OkStatus();
}

void RowService::OnMessage(net::PeerId from, std::span<const std::byte> header,
                           std::span<const std::byte> body) {
  metrics_.requests.Add();
  auto lookup = net::ParseLookup(header, body);
  const Status admitted = lookup.ok() ? Admit(*lookup, from) : lookup.status();
  if (!admitted.ok()) return Refuse(from, RequestIdOf(header), admitted);
  ++sessions_.at(from).queued;
  Request& request = queue_.Push(lookup->header.priority);
  request.peer = from;
  request.header = lookup->header;
  request.layers.assign(lookup->layers().begin(), lookup->layers().end());
  request.ids.assign(lookup->ids.begin(), lookup->ids.end());
  request.layer = 0;
  request.first = 0;
  request.ids_before = 0;
  request.turn_rows = 0;
  request.arrived = clock_.Now();
  request.deadline = request.arrived + std::chrono::microseconds(request.header.budget_us);
}

void RowService::Refuse(net::PeerId peer, uint64_t request_id, Status why) {
  metrics_.CountError(why.code());
  if (errors_.size() >= kPendingErrorsMax) return metrics_.errors_dropped.Add();
  errors_.push_back({peer, request_id, std::move(why)});
}

void RowService::SendErrors() {
  while (!errors_.empty() && ring_.free_count() > 0) {
    const PendingError error = std::move(errors_.front());
    errors_.pop_front();
    const auto session = sessions_.find(error.peer);
    if (session == sessions_.end() ||
        session->second.sends_under_way >= options_.peer_buffers_max) {
      metrics_.errors_dropped.Add();  // gone, or taking no data: its own deadline ends the lookup
      continue;
    }
    SendRing::Slot* slot = ring_.Take(error.peer, clock_.Now());
    const size_t text_bytes = std::min(error.why.message().size(), kErrorTextMax);
    const std::span<std::byte> text = slot->buffer->bytes().first(text_bytes);
    std::memcpy(text.data(), error.why.message().data(), text_bytes);
    net::LookupErrorHeader header;
    header.request_id = error.request_id;
    header.code = static_cast<int32_t>(error.why.code());
    net::Seal(header, text);
    if (!Send(session->second, net::HeaderBytes(header), slot, text_bytes).ok()) {
      metrics_.errors_dropped.Add();  // the client is gone
    }
  }
}

void RowService::OnSent(SendRing::Slot* slot) {
  const auto session = sessions_.find(slot->peer);
  if (session != sessions_.end()) --session->second.sends_under_way;
  ring_.Release(slot);
}

Status RowService::Send(Session& session, std::span<const std::byte> header, SendRing::Slot* slot,
                        size_t body_bytes, bool more) {
  ++session.sends_under_way;
  const auto done = [this, slot](const Status&) { OnSent(slot); };
  net::SendBuffer* buffer = slot->buffer.get();
  const Status sent = more ? transport_->SendMore(slot->peer, header, buffer, body_bytes, done)
                           : transport_->Send(slot->peer, header, buffer, body_bytes, done);
  if (!sent.ok()) OnSent(slot);
  return sent;
}

// Whether there are `count` buffers for this client.
bool RowService::CanSend(size_t priority, const Session& session, size_t count) const {
  return ring_.free_count() >= count + (priority == 0 ? 0 : kReservedBuffers) &&
         session.sends_under_way + count <= options_.peer_buffers_max;
}

// Serves one chunk of the first request, best priority first, whose client takes data and whose
// rows are there.
bool RowService::ServeChunk() {
  for (size_t priority = 0; priority < net::kPriorityCount; ++priority) {
    for (size_t left = queue_.size(priority); left > 0; --left) {
      Request& request = queue_.Front(priority);
      const auto session = sessions_.find(request.peer);
      if (session == sessions_.end()) {
        Pop(priority);  // the client is gone
        continue;
      }
      const Result<bool> ready = Ready(request, session->second);
      if (!ready.ok()) {
        End(priority, ready.status());
        return true;
      }
      if (!*ready || !CanSend(priority, session->second)) {
        queue_.Rotate(priority);
        continue;
      }
      const Status served = Advance(request, session->second);
      if (!served.ok() || request.done()) {
        End(priority, served);
      } else if (request.turn_rows >= kTurnRows) {
        request.turn_rows = 0;
        queue_.Rotate(priority);
      }
      return true;
    }
  }
  return false;
}

// Whether the next layer's rows are all at hand or have come from the store. A layer that is late
// already needs none.
Result<bool> RowService::Ready(Request& request, const Session& session) {
  ColdReader* const cold = session.tables->cold();
  if (cold == nullptr) return true;
  const TimePoint now = clock_.Now();
  if (now >= request.deadline || !InTime(request, request.layers[request.layer], now)) return true;
  if (request.cold == nullptr) {
    ASSIGN_OR_RETURN(const bool staged, StageColdRows(request, *session.tables, *cold,
                                                      [waker = waker_] { waker->Wake(); }));
    if (!staged) return false;
  }
  if (!request.cold->Arrived(request.layer)) return false;
  Status read = request.cold->status(request.layer);
  if (read.ok()) return true;
  metrics_.CountUnreadable(now, request.rows());
  return read;
}

void RowService::End(size_t priority, const Status& served) {
  const Request& request = queue_.Front(priority);
  if (served.ok()) {
    metrics_.CountServed(request.arrived, clock_.Now(), request.rows());
  } else if (sessions_.contains(request.peer)) {
    Refuse(request.peer, request.header.request_id, served);
  }
  Pop(priority);
}

void RowService::Pop(size_t priority) {
  const auto session = sessions_.find(queue_.Front(priority).peer);
  if (session != sessions_.end()) --session->second.queued;
  queue_.Pop(priority);
}

// Sends the request's next chunk. A request of few rows sends all chunks in one system call, which
// costs as much as a token's rows. A late layer is left out: its client has given it up.
Status RowService::Advance(Request& request, Session& session) {
  const TimePoint now = clock_.Now();
  const size_t total_rows = request.ids.size() / request.header.id_bytes;
  if (now >= request.deadline) {
    return DeadlineExceeded(
        fmt::format("{} us were not enough for {} rows", request.header.budget_us, total_rows));
  }
  const bool together = total_rows <= session.chunk_rows;
  if (together) PrefetchLater(request, session);
  bool ready = true;  // the current layer's rows
  do {
    const net::LookupLayer& layer = request.layers[request.layer];
    if (InTime(request, layer, now)) {
      const uint32_t count = std::min(session.chunk_rows, layer.row_count - request.first);
      const bool more = together && AnotherFollows(request, session, now);
      ASSIGN_OR_RETURN(const bool sent, SendChunk(request, session, layer, count, now, more));
      if (!sent) return OkStatus();  // its rows are looked for again
      request.first += count;
      request.turn_rows += count;
    } else {
      metrics_.layers_late.Add();
      request.first = layer.row_count;
    }
    if (request.first < layer.row_count) continue;
    ++request.layer;
    request.first = 0;
    request.ids_before += layer.row_count;
    if (request.done()) break;
    ASSIGN_OR_RETURN(ready, Ready(request, session));
  } while (together && ready && CanSend(request.header.priority, session));
  return OkStatus();
}

// Prefetches the rows of all layers but the first: they reach the cache while its chunk is packed.
void RowService::PrefetchLater(const Request& request, const Session& session) {
  size_t before = 0;
  const ServedTables& tables = *session.tables;
  if (!tables.complete()) return;
  for (const net::LookupLayer& layer : request.layers) {
    if (before > 0 && FindRows(request, session, layer, before, layer.row_count).ok()) {
      for (uint32_t i = 0; i < layer.row_count; ++i) {
        table::PrefetchRow(addresses_[i], tables.stored_row_bytes());
      }
    }
    before += layer.row_count;
  }
}

// Whether Advance will go on to another chunk after the next one.
bool RowService::AnotherFollows(const Request& request, const Session& session,
                                TimePoint now) const {
  if (!CanSend(request.header.priority, session, 2)) return false;
  const std::span<const net::LookupLayer> later =
      std::span(request.layers).subspan(request.layer + 1);
  return std::any_of(later.begin(), later.end(),
                     [&](const net::LookupLayer& layer) { return InTime(request, layer, now); });
}

// `count` rows of the layer, from the request's id number `first` on.
Status RowService::FindRows(const Request& request, const Session& session,
                            const net::LookupLayer& layer, size_t first, uint32_t count) {
  const auto rows = RowsOf(request, first, std::span(rows_).first(count));
  return session.tables->Locate(layer.layer_index, rows, computed_,
                                std::span(addresses_).first(count));
}

// False when a row has left memory since Ready looked: the request is staged again.
Result<bool> RowService::SendChunk(Request& request, Session& session,
                                   const net::LookupLayer& layer, uint32_t count, TimePoint now,
                                   bool more) {
  const ServedTables& tables = *session.tables;
  const size_t body_bytes = size_t{count} * tables.stored_row_bytes();
  const bool some_cold = tables.cold() != nullptr;
  const auto in_use = tables.Use();
  RETURN_IF_ERROR(FindRows(request, session, layer, request.ids_before + request.first, count));
  if (some_cold && !PlaceColdRows(request, request.first, std::span(addresses_).first(count))) {
    request.cold.reset();
    return false;
  }
  SendRing::Slot* slot = ring_.Take(request.peer, now);
  if (options_.gather) {
    table::CopyRows(std::span(addresses_).first(count), tables.stored_row_bytes(),
                    slot->buffer->bytes().data());
  }
  net::RowsHeader header;
  header.request_id = request.header.request_id;
  header.layer_index = layer.layer_index;
  header.first = request.first;
  header.row_count = count;
  header.stored_row_bytes = tables.stored_row_bytes();
  net::Seal(header);
  RETURN_IF_ERROR(Send(session, net::HeaderBytes(header), slot, body_bytes, more));
  tables.CountRows(layer.layer_index, count);
  metrics_.bytes.Add(static_cast<double>(body_bytes));
  return true;
}

// A client that takes no data does not harm the others, but holds buffers and requests.
void RowService::CutOffStuck() {
  next_stall_check_ = Clock::Real().Now() + kStallCheckEvery;
  const net::PeerId stuck = ring_.StuckPeer(clock_.Now() - options_.send_stall_max);
  if (!sessions_.contains(stuck)) return;
  obs::LogWarn(fmt::format("client takes no data and is cut off peer={}", stuck));
  metrics_.peers_given_up.Add();
  ForgetPeer(stuck);
  transport_->Disconnect(stuck);
}

}  // namespace engram::memnode
