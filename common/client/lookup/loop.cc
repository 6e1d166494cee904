#include "common/client/lookup/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "common/table/row_check.h"

namespace engram::client {
namespace {

constexpr Nanos kSleepMax = std::chrono::milliseconds(20);
constexpr Nanos kDrainTimeout = std::chrono::seconds(5);
constexpr Nanos kControlCheckEvery = std::chrono::milliseconds(20);
constexpr size_t kReportsPerCheck = 1;  // 50 a second
constexpr uint64_t kSlotMask = 0xffff;
constexpr int kSlotBits = 16;
// Local requests up to this size are served by the caller in Submit: about 5 us of copying, less
// than waking the loop's thread costs.
constexpr uint32_t kInlineRows = 256;

}  // namespace

LookupLoop::LookupLoop(Options options, std::unique_ptr<net::Transport> transport,
                       std::vector<NodeLink> nodes, std::shared_ptr<DamageReports> damage,
                       const Clock& clock)
    : options_(options),
      clock_(clock),
      damage_(std::move(damage)),
      nodes_(std::move(nodes)),
      counters_(nodes_.size()),
      gone_(nodes_.size()),
      down_(nodes_.size()),
      skip_(nodes_.size()),
      health_(nodes_.size()),
      skipped_here_(nodes_.size()),
      slots_(options.requests_max),
      queues_(nodes_.size()),
      transport_(std::move(transport)) {
  CHECK_LE(options.requests_max, kSlotMask);
  for (uint32_t slot = options.requests_max; slot > 0; --slot) free_slots_.push_back(slot - 1);
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    node_of_peer_[nodes_[node].peer] = node;
    local_nodes_.push_back({&nodes_[node].paths, &counters_[node]});
    const uint32_t window = nodes_[node].control->welcome().window;
    queues_[node].window = window == 0 ? options.requests_max : window;
    for (IdRing& ring : queues_[node].waiting) ring = IdRing(options.requests_max);
  }
  next_control_check_ = last_event_ = clock_.Now();
  transport_->SetHandler(this);
  if (options.caller_driven) return;
  Result<std::thread> started = StartThread("lookups", [this] { Run(); });
  started_ = started.status();
  if (started.ok()) thread_ = *std::move(started);
}

LookupLoop::~LookupLoop() {
  stopping_.store(true);
  transport_->WakeUp();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    Shutdown();
  }
}

Status LookupLoop::Post(const StepRef& step) {
  bool all_served = true;
  uint32_t count = 0;
  for (NodeRequest& request : step->requests()) {
    request.path = nodes_[request.node].paths.Choose(request.rows);
    request.served =
        request.path == Path::kLocal && (options_.caller_driven || request.rows <= kInlineRows);
    all_served = all_served && request.served;
    count += request.served ? 0 : 1;
  }
  if (step->requests().empty()) return OkStatus();  // no rows at all
  {
    const std::lock_guard lock(mutex_);
    for (const NodeRequest& request : step->requests()) {
      const bool skipped = skip_[request.node] && request.path != Path::kLocal;
      if (!skipped && gone_[request.node].ok()) continue;
      const Status gone = skipped ? Skipped(down_[request.node]) : gone_[request.node];
      return Status(gone.code(),
                    fmt::format("memory node {}: {}; {} rows wanted from it",
                                nodes_[request.node].label, gone.message(), request.rows));
    }
    const uint32_t before = requests_under_way_.load();
    if (before + count > options_.requests_max) {
      return ResourceExhausted(
          fmt::format("{} lookup requests are under way, {} more would pass "
                      "the limit of {}",
                      before, count, options_.requests_max));
    }
    requests_under_way_.fetch_add(count);
    if (!all_served) {
      posts_.push_back(step);
      has_posts_.store(true);
    }
  }
  // The others' answers come while these are copied.
  if (!all_served && options_.caller_driven) {
    TakePosts();
    SendQueued();
  } else if (!all_served && sleeping_.load()) {
    transport_->WakeUp();
  }
  for (const NodeRequest& request : step->requests()) {
    if (!request.served) continue;
    const Status served = ServeLocal(*step, request);
    if (!served.ok()) step->Fail(request, served);
  }
  return OkStatus();
}

bool LookupLoop::AllLocal(size_t rows) const {
  const auto rows_of_one = static_cast<uint32_t>(rows / nodes_.size() + 1);
  return std::all_of(nodes_.begin(), nodes_.end(), [&](const NodeLink& node) {
    return node.paths.Choose(rows_of_one) == Path::kLocal;
  });
}

Status LookupLoop::GatherHere(const PlanContext& context, std::span<const LayerLookup> layers) {
  if (options_.caller_driven) {
    const TimePoint now = clock_.Now();
    if (now >= next_control_check_) CheckControls(now);
  }
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    const Status gone = Gone(node);
    if (!gone.ok()) return gone.WithContext("memory node " + nodes_[node].label);
  }
  for (const LayerLookup& layer : layers) {
    RETURN_IF_ERROR(GatherLocally(context, local_nodes_, layer));
  }
  return OkStatus();
}

// Ok while the node is there.
Status LookupLoop::Gone(uint32_t node) {
  if (!any_gone_.load()) return OkStatus();
  const std::lock_guard lock(mutex_);
  return gone_[node];
}

void LookupLoop::ResetCounters() {
  for (NodeCounters& counters : counters_) {
    counters.rows_fetched = 0;
    counters.bytes_fetched = 0;
    counters.requests = 0;
    for (auto& rows : counters.rows_by_path) rows = 0;
  }
}

void LookupLoop::Run() {
  while (!stopping_.load()) {
    const TimePoint now = clock_.Now();
    if (RunOnce(now) == 0) Sleep(now, next_deadline_);
  }
  Shutdown();
}

int LookupLoop::RunOnce(TimePoint now) {
  now_ = now;
  TakePosts();
  if (watching_.load(std::memory_order_acquire) && now >= next_probe_) SendProbes(now);
  SendQueued();
  const int events = transport_->Progress();
  if (events > 0) last_event_ = now;
  if (now >= next_deadline_) Expire(now);
  if (now >= next_control_check_) CheckControls(now);
  return events;
}

void LookupLoop::DriveUntil(const Step& step, uint32_t layer_index) {
  while (options_.caller_driven && !step.Done(layer_index)) {
    const TimePoint now = clock_.Now();
    if (now >= step.LayerDeadline(layer_index)) return;
    if (RunOnce(now) == 0) Sleep(now, std::min(next_deadline_, step.LayerDeadline(layer_index)));
  }
}

void LookupLoop::Shutdown() {
  TakePosts();
  for (Request& request : slots_) {
    if (request.id != 0) End(request, Cancelled("the client closed"));
  }
  for (const NodeLink& node : nodes_) transport_->Disconnect(node.peer);
  // A send or read that completed after its buffer is gone would touch freed memory.
  const TimePoint deadline = Clock::Real().Now() + kDrainTimeout;
  while (free_buffers_.size() < buffers_.size() && Clock::Real().Now() < deadline) {
    transport_->Progress();
  }
  CHECK_EQ(free_buffers_.size(), buffers_.size()) << "sends outlive Disconnect";
}

void LookupLoop::Sleep(TimePoint now, TimePoint until) {
  if (requests_under_way_.load(std::memory_order_relaxed) > 0 && now - last_event_ < options_.spin)
    return;
  until = std::min(until, next_control_check_);
  if (until <= now) return;
  sleeping_.store(true);
  // A post before that store has set has_posts_; one after it sees us sleeping.
  if (!has_posts_.load()) transport_->Wait(std::min<Nanos>(until - now, kSleepMax));
  sleeping_.store(false);
}

void LookupLoop::TakePosts() {
  if (!has_posts_.load()) return;
  {
    const std::lock_guard lock(mutex_);
    taken_.swap(posts_);
    has_posts_.store(false);
  }
  for (const StepRef& step : taken_) {
    for (uint32_t index = 0; index < step->requests().size(); ++index) {
      if (!step->requests()[index].served) Queue(step, index);
    }
  }
  taken_.clear();
}

void LookupLoop::Queue(const StepRef& step, uint32_t index) {
  const uint32_t slot = free_slots_.back();  // requests_under_way_ keeps one free
  free_slots_.pop_back();
  Request& request = slots_[slot];
  request.id = next_sequence_++ << kSlotBits | slot;
  request.step = step;
  request.index = index;
  request.rows_missing = request.plan().rows;
  request.sent = false;
  request.counted = true;
  request.section = 0;
  request.first = 0;
  next_deadline_ = std::min(next_deadline_, step->deadline());
  // Posted just before its node was found gone or skipped.
  const uint32_t node = request.plan().node;
  if (const Status gone = Gone(node); !gone.ok()) return End(request, gone);
  if (skipped_here_[node] && !step->probe() && request.plan().path != Path::kLocal) {
    return End(request, Skipped(health_[node].status()));
  }
  if (request.plan().path == Path::kLocal) {
    Uncount(request);
    End(request, ServeLocal(*step, request.plan()));
    return;
  }
  IdRing& waiting = queues_[request.plan().node].waiting[static_cast<size_t>(step->priority())];
  if (waiting.full()) {
    queued_ -= waiting.Compact([this](uint64_t id) { return FindRequest(id) != nullptr; });
  }
  waiting.PushBack(request.id);
  ++queued_;
}

LookupLoop::Request* LookupLoop::FindRequest(uint64_t id) {
  const size_t slot = id & kSlotMask;
  return id != 0 && slot < slots_.size() && slots_[slot].id == id ? &slots_[slot] : nullptr;
}

void LookupLoop::OnMessage(net::PeerId from, std::span<const std::byte> header,
                           std::span<const std::byte> body) {
  const auto node = node_of_peer_.find(from);
  const Result<net::MessageType> type = net::PeekType(header);
  if (node != node_of_peer_.end()) health_[node->second].Heard(now_);
  if (node != node_of_peer_.end() && type.ok() && *type == net::MessageType::kRows) {
    OnRows(node->second, header, body);
  } else if (node != node_of_peer_.end() && type.ok() && *type == net::MessageType::kLookupError) {
    OnError(node->second, header, body);
  } else {
    messages_dropped_.fetch_add(1);
  }
}

void LookupLoop::OnRows(uint32_t node, std::span<const std::byte> header,
                        std::span<const std::byte> body) {
  net::RowsHeader rows;
  if (header.size() != sizeof(rows)) {
    messages_dropped_.fetch_add(1);
    return;
  }
  std::memcpy(&rows, header.data(), sizeof(rows));
  Request* request = FindRequest(rows.request_id);
  if (request == nullptr || request->plan().node != node) {
    messages_dropped_.fetch_add(1);
    return;
  }
  const Status placed = PlaceChunk(*request, header, body);
  if (!placed.ok() || request->rows_missing == 0) End(*request, placed);
}

// The chunk, compared with what was asked, goes to its places.
Status LookupLoop::PlaceChunk(Request& request, std::span<const std::byte> header,
                              std::span<const std::byte> body) {
  ASSIGN_OR_RETURN(const net::RowsHeader rows, net::ParseRows(header, body));
  const NodeRequest& plan = request.plan();
  const std::span<const Section> sections = request.step->SectionsOf(plan);
  const auto section = std::find_if(sections.begin(), sections.end(), [&](const Section& s) {
    return s.layer_index == rows.layer_index;
  });
  const uint32_t stride =
      table::StoredRowBytes(request.step->context().layout.row_format.row_bytes());
  if (section == sections.end() || rows.first >= section->count ||
      rows.row_count > section->count - rows.first || rows.stored_row_bytes != stride) {
    return DataLoss(
        fmt::format("it sent rows {} + {} of {} bytes in layer index {}, which were not "
                    "asked for",
                    rows.first, rows.row_count, rows.stored_row_bytes, rows.layer_index));
  }
  if (rows.row_count > request.rows_missing) return DataLoss("it sent more rows than asked for");
  if (rows.row_count == request.rows_missing) Uncount(request);
  std::array<const std::byte*, net::kChunkRowsMax> addresses;
  for (uint32_t i = 0; i < rows.row_count; ++i) addresses[i] = body.data() + size_t{i} * stride;
  RETURN_IF_ERROR(
      request.step->PlaceRows({*section, rows.first, std::span(addresses).first(rows.row_count)},
                              Path::kGather, CountersOf(*request.step, plan.node)));
  request.rows_missing -= rows.row_count;
  return OkStatus();
}

void LookupLoop::OnError(uint32_t node, std::span<const std::byte> header,
                         std::span<const std::byte> body) {
  const Result<net::LookupErrorHeader> error = net::ParseLookupError(header, body);
  Request* request = error.ok() ? FindRequest(error->request_id) : nullptr;
  if (request == nullptr || request->plan().node != node) {
    messages_dropped_.fetch_add(1);
    return;
  }
  const size_t text_bytes = std::min<size_t>(body.size(), 1024);
  const std::string text(reinterpret_cast<const char*>(body.data()), text_bytes);
  End(*request, Status(static_cast<Code>(error->code), text));
}

void LookupLoop::OnPeerLost(net::PeerId peer, const Status& why) {
  const auto node = node_of_peer_.find(peer);
  if (node != node_of_peer_.end()) LoseNode(node->second, why);
}

void LookupLoop::CheckControls(TimePoint now) {
  next_control_check_ = now + kControlCheckEvery;
  if (damage_->any()) TellDamage();
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    if (nodes_[node].control->Lost()) {
      LoseNode(node, Unavailable("it closed the control connection"));
    }
  }
}

// What a node cannot take now is dropped: the row is reported again when it is asked for again.
void LookupLoop::TellDamage() {
  for (const DamageReports::Report& report : damage_->Take(kReportsPerCheck)) {
    nodes_[report.node].control->ReportDamaged(report.row);
  }
}

void LookupLoop::LoseNode(uint32_t node, const Status& why) {
  const Status gone =
      Unavailable("is gone: " + why.message() + "; it is not connected to again until a restart");
  {
    const std::lock_guard lock(mutex_);
    if (!gone_[node].ok()) return;
    gone_[node] = gone;
    any_gone_.store(true);
  }
  if (watching_.load()) {
    obs::LogWarn(
        fmt::format("memory node is gone node=\"{}\" why={}", nodes_[node].label, why.message()));
  }
  transport_->Disconnect(nodes_[node].peer);
  for (Request& request : slots_) {
    if (request.id != 0 && request.plan().node == node) End(request, gone);
  }
}

void LookupLoop::Expire(TimePoint now) {
  next_deadline_ = TimePoint::max();
  for (Request& request : slots_) {
    if (request.id == 0) continue;
    if (request.step->deadline() <= now) {
      const bool missed = watching_.load() && request.sent && !request.step->probe();
      const uint32_t node = request.plan().node;
      End(request, DeadlineExceeded("no complete answer before the deadline"));
      if (missed) LookupMissed(node, request.sent_at);
    } else {
      next_deadline_ = std::min(next_deadline_, request.step->deadline());
    }
  }
}

// Before the caller is woken: its next Submit must find the room this request took.
void LookupLoop::Uncount(Request& request) {
  if (std::exchange(request.counted, false)) requests_under_way_.fetch_sub(1);
}

// What still waits in a queue, or is being read, finds its id gone.
void LookupLoop::End(Request& request, const Status& why) {
  if (request.sent) --queues_[request.plan().node].under_way;
  Uncount(request);
  if (!why.ok()) request.step->Fail(request.plan(), why);
  const bool probe = request.step->probe();
  const uint32_t node = request.plan().node;
  request.id = 0;
  request.step = StepRef();
  free_slots_.push_back(static_cast<uint32_t>(&request - slots_.data()));
  if (probe) ProbeEnded(node, why);
}

}  // namespace engram::client
