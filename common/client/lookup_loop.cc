#include "common/client/lookup_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/net/wire_encode.h"
#include "common/table/row_check.h"

namespace engram::client {
namespace {

constexpr size_t kSendBuffersMax = 64;  // of kBodyBytesMax each; further requests wait for one
constexpr Nanos kSleepMax = std::chrono::milliseconds(20);
constexpr Nanos kDrainTimeout = std::chrono::seconds(5);
constexpr Nanos kControlCheckEvery = std::chrono::milliseconds(20);

template <typename Id>
void WriteIds(const LayerPlan& plan, const Section& section, std::byte*& out) {
  for (uint32_t i = section.first; i < section.first + section.count; ++i) {
    const Id id = static_cast<Id>(plan.rows[plan.by_node[i]]);
    std::memcpy(out, &id, sizeof(id));
    out += sizeof(id);
  }
}

uint32_t BudgetMicros(Nanos left) {
  const int64_t micros = std::chrono::duration_cast<std::chrono::microseconds>(left).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(micros, 0, UINT32_MAX));
}

}  // namespace

LookupLoop::LookupLoop(Options options, std::unique_ptr<net::Transport> transport,
                       std::vector<NodeLink> nodes, const Clock& clock)
    : options_(options),
      clock_(clock),
      nodes_(std::move(nodes)),
      counters_(nodes_.size()),
      gone_(nodes_.size()),
      transport_(std::move(transport)) {
  transport_->SetHandler(this);
  thread_ = std::thread([this] { Run(); });
}

LookupLoop::~LookupLoop() {
  stopping_.store(true);
  transport_->WakeUp();
  thread_.join();
}

Status LookupLoop::Post(std::shared_ptr<Step> step) {
  const auto count = static_cast<uint32_t>(step->requests().size());
  if (count == 0) return OkStatus();  // no rows at all
  {
    const std::lock_guard lock(mutex_);
    for (const NodeRequest& request : step->requests()) {
      const Status& gone = gone_[request.node];
      if (gone.ok()) continue;
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
    posts_.push_back(std::move(step));
  }
  transport_->WakeUp();
  return OkStatus();
}

void LookupLoop::ResetCounters() {
  for (NodeCounters& counters : counters_) {
    counters.rows_fetched = 0;
    counters.bytes_fetched = 0;
    counters.requests = 0;
  }
}

void LookupLoop::Run() {
  next_control_check_ = last_event_ = clock_.Now();
  while (!stopping_.load()) {
    TakePostsOnLoop();
    SendQueuedOnLoop();
    const int events = transport_->Progress();
    const TimePoint now = clock_.Now();
    if (now >= next_deadline_) ExpireOnLoop(now);
    if (now >= next_control_check_) CheckControlsOnLoop(now);
    if (events > 0) {
      last_event_ = now;
    } else {
      SleepOnLoop(now);
    }
  }
  TakePostsOnLoop();
  while (!requests_.empty()) EndOnLoop(requests_.begin()->first, Cancelled("the client closed"));
  for (const NodeLink& node : nodes_) transport_->Disconnect(node.peer);
  DrainSendsOnLoop();
}

// A send that completed after its buffer is gone would write into freed memory.
void LookupLoop::DrainSendsOnLoop() {
  const TimePoint deadline = Clock::Real().Now() + kDrainTimeout;
  while (free_buffers_.size() < buffers_.size() && Clock::Real().Now() < deadline) {
    transport_->Progress();
  }
  CHECK_EQ(free_buffers_.size(), buffers_.size()) << "sends outlive Disconnect";
}

void LookupLoop::SleepOnLoop(TimePoint now) {
  if (!requests_.empty() && now - last_event_ < options_.spin) return;
  const TimePoint until = std::min(next_deadline_, next_control_check_);
  if (until <= now) return;
  transport_->Wait(std::min<Nanos>(until - now, kSleepMax));
}

void LookupLoop::TakePostsOnLoop() {
  {
    const std::lock_guard lock(mutex_);
    if (posts_.empty()) return;
    taken_.swap(posts_);
  }
  for (const std::shared_ptr<Step>& step : taken_) {
    for (uint32_t index = 0; index < step->requests().size(); ++index) {
      const uint64_t id = next_request_id_++;
      requests_[id] = {step, index, step->requests()[index].rows, true};
      to_send_.push_back(id);
      next_deadline_ = std::min(next_deadline_, step->deadline());
    }
  }
  taken_.clear();
}

void LookupLoop::SendQueuedOnLoop() {
  while (!to_send_.empty()) {
    const uint64_t id = to_send_.front();
    const auto found = requests_.find(id);
    if (found != requests_.end()) {  // else it has ended meanwhile
      if (free_buffers_.empty() && buffers_.size() == kSendBuffersMax) return;
      const Status sent = SendOnLoop(id, found->second);
      if (!sent.ok()) EndOnLoop(id, sent);
    }
    to_send_.pop_front();
  }
}

net::SendBuffer* LookupLoop::TakeBufferOnLoop() {
  if (free_buffers_.empty()) {
    auto buffer = transport_->AllocateSendBuffer(net::kBodyBytesMax);
    if (!buffer.ok()) return nullptr;
    buffers_.push_back(std::move(*buffer));
    free_buffers_.push_back(buffers_.back().get());
  }
  net::SendBuffer* buffer = free_buffers_.back();
  free_buffers_.pop_back();
  return buffer;
}

Status LookupLoop::SendOnLoop(uint64_t request_id, const Request& request) {
  const NodeRequest& plan = request.plan();
  const NodeLink& node = nodes_[plan.node];
  {
    const std::lock_guard lock(mutex_);
    if (!gone_[plan.node].ok()) return gone_[plan.node];
  }
  net::SendBuffer* buffer = TakeBufferOnLoop();
  if (buffer == nullptr) return ResourceExhausted("no memory for a send buffer");
  const PlanContext& context = request.step->context();
  std::byte* end = buffer->bytes().data();
  wire_layers_.clear();
  for (const Section& section : request.step->SectionsOf(plan)) {
    wire_layers_.push_back({section.layer_index, section.count});
    const LayerPlan& layer = request.step->layer(section.layer_index);
    if (context.id_bytes == 4) {
      WriteIds<uint32_t>(layer, section, end);
    } else {
      WriteIds<uint64_t>(layer, section, end);
    }
  }
  const std::span<const std::byte> ids(buffer->bytes().data(), end);
  net::LookupHeader header;
  header.session = node.control->welcome().session;
  header.request_id = request_id;
  header.epoch = options_.epoch;
  header.budget_us = BudgetMicros(request.step->deadline() - clock_.Now());
  header.id_bytes = static_cast<uint8_t>(context.id_bytes);
  net::EncodeLookup(header, wire_layers_, ids, header_);
  counters_[plan.node].requests.fetch_add(1, std::memory_order_relaxed);
  const Status sent =
      transport_->Send(node.peer, header_, buffer, ids.size(), [this, buffer](const Status&) {
        // A failed send shows as a lost peer, or as a deadline.
        free_buffers_.push_back(buffer);
      });
  if (!sent.ok()) free_buffers_.push_back(buffer);
  return sent;
}

void LookupLoop::OnMessage(net::PeerId from, std::span<const std::byte> header,
                           std::span<const std::byte> body) {
  const auto node = std::find_if(nodes_.begin(), nodes_.end(),
                                 [&](const NodeLink& link) { return link.peer == from; });
  const Result<net::MessageType> type = net::PeekType(header);
  const auto index = static_cast<uint32_t>(node - nodes_.begin());
  if (node != nodes_.end() && type.ok() && *type == net::MessageType::kRows) {
    OnRowsOnLoop(index, header, body);
  } else if (node != nodes_.end() && type.ok() && *type == net::MessageType::kLookupError) {
    OnErrorOnLoop(index, header, body);
  } else {
    messages_dropped_.fetch_add(1);
  }
}

void LookupLoop::OnRowsOnLoop(uint32_t node, std::span<const std::byte> header,
                              std::span<const std::byte> body) {
  net::RowsHeader rows;
  if (header.size() != sizeof(rows)) {
    messages_dropped_.fetch_add(1);
    return;
  }
  std::memcpy(&rows, header.data(), sizeof(rows));
  const auto found = requests_.find(rows.request_id);
  if (found == requests_.end() || found->second.plan().node != node) {
    messages_dropped_.fetch_add(1);
    return;
  }
  const Status placed = PlaceOnLoop(found->second, header, body);
  if (!placed.ok()) return EndOnLoop(rows.request_id, placed);
  if (found->second.rows_missing == 0) EndOnLoop(rows.request_id, OkStatus());
}

// The chunk, checked against its CRC and against what was asked, goes to its places.
Status LookupLoop::PlaceOnLoop(Request& request, std::span<const std::byte> header,
                               std::span<const std::byte> body) {
  ASSIGN_OR_RETURN(const net::RowsHeader rows, net::ParseRows(header, body));
  const NodeRequest& plan = request.plan();
  const std::span<const Section> sections = request.step->SectionsOf(plan);
  const auto section = std::find_if(sections.begin(), sections.end(), [&](const Section& s) {
    return s.layer_index == rows.layer_index;
  });
  if (section == sections.end() || rows.first >= section->count ||
      rows.row_count > section->count - rows.first ||
      rows.stored_row_bytes !=
          table::StoredRowBytes(request.step->context().layout.row_format.row_bytes())) {
    return DataLoss(
        fmt::format("it sent rows {} + {} of {} bytes in layer {}, which were not asked "
                    "for",
                    rows.first, rows.row_count, rows.stored_row_bytes, rows.layer_index));
  }
  RETURN_IF_ERROR(
      request.step->PlaceRows(*section, rows.first, rows.row_count, body, counters_[plan.node]));
  if (rows.row_count > request.rows_missing) return DataLoss("it sent more rows than asked for");
  request.rows_missing -= rows.row_count;
  return OkStatus();
}

void LookupLoop::OnErrorOnLoop(uint32_t node, std::span<const std::byte> header,
                               std::span<const std::byte> body) {
  const Result<net::LookupErrorHeader> error = net::ParseLookupError(header, body);
  const auto found = error.ok() ? requests_.find(error->request_id) : requests_.end();
  if (found == requests_.end() || found->second.plan().node != node) {
    messages_dropped_.fetch_add(1);
    return;
  }
  const size_t text_bytes = std::min<size_t>(body.size(), 1024);
  const std::string text(reinterpret_cast<const char*>(body.data()), text_bytes);
  EndOnLoop(error->request_id, Status(static_cast<Code>(error->code), text));
}

void LookupLoop::OnPeerLost(net::PeerId peer, const Status& why) {
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    if (nodes_[node].peer == peer) LoseNodeOnLoop(node, why);
  }
}

void LookupLoop::CheckControlsOnLoop(TimePoint now) {
  next_control_check_ = now + kControlCheckEvery;
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    if (nodes_[node].control->Lost()) {
      LoseNodeOnLoop(node, Unavailable("it closed the control connection"));
    }
  }
}

void LookupLoop::LoseNodeOnLoop(uint32_t node, const Status& why) {
  Status gone = Unavailable("is gone: " + why.message());
  {
    const std::lock_guard lock(mutex_);
    if (!gone_[node].ok()) return;
    gone_[node] = gone;
  }
  transport_->Disconnect(nodes_[node].peer);
  std::vector<uint64_t> hit;
  for (const auto& [id, request] : requests_) {
    if (request.plan().node == node) hit.push_back(id);
  }
  for (const uint64_t id : hit) EndOnLoop(id, gone);
}

void LookupLoop::ExpireOnLoop(TimePoint now) {
  std::vector<uint64_t> late;
  next_deadline_ = TimePoint::max();
  for (const auto& [id, request] : requests_) {
    if (request.step->deadline() <= now) {
      late.push_back(id);
    } else {
      next_deadline_ = std::min(next_deadline_, request.step->deadline());
    }
  }
  for (const uint64_t id : late) {
    EndOnLoop(id, DeadlineExceeded("no complete answer before the deadline"));
  }
}

// Before the caller is woken: its next Submit must find the room this request took.
void LookupLoop::UncountOnLoop(Request& request) {
  if (std::exchange(request.counted, false)) requests_under_way_.fetch_sub(1);
}

void LookupLoop::EndOnLoop(uint64_t request_id, const Status& why) {
  const auto found = requests_.find(request_id);
  UncountOnLoop(found->second);
  if (!why.ok()) found->second.step->Fail(found->second.plan(), why);
  requests_.erase(found);
}

}  // namespace engram::client
