// The sending half of the lookup loop: from queued requests to messages or one-sided reads.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/client/lookup/loop.h"
#include "common/net/wire_encode.h"
#include "common/table/row_check.h"

namespace engram::client {
namespace {

constexpr size_t kSendBuffersMax = 64;  // of kBodyBytesMax each; further requests wait for one

template <typename Id>
void WriteIds(const LayerPlan& plan, const Section& section, std::byte*& out) {
  for (const uint32_t index : section.rows) {
    const Id id = static_cast<Id>(plan.rows[index]);
    std::memcpy(out, &id, sizeof(id));
    out += sizeof(id);
  }
}

uint32_t BudgetMicros(Nanos left) {
  const int64_t micros = std::chrono::duration_cast<std::chrono::microseconds>(left).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(micros, 0, UINT32_MAX));
}

}  // namespace

void LookupLoop::SendQueued() {
  if (queued_ == 0) return;
  for (Node& node : nodes_) {
    for (IdRing& waiting : node.waiting) {
      while (!waiting.empty() && SendFirst(node, waiting)) {
        waiting.PopFront();
        --queued_;
      }
      if (!waiting.empty()) break;  // a worse priority waits behind
    }
  }
}

// True when the queue's first request is on its way, or over: it leaves the queue.
bool LookupLoop::SendFirst(Node& node, IdRing& waiting) {
  Request* found = requests_.Find(waiting.Front());
  if (found == nullptr) return true;  // it has ended meanwhile
  Request& request = *found;
  if (!request.sent) {
    if (request.hedged && request.step->Complete(request.plan())) {
      End(request, OkStatus());
      return true;
    }
    if (node.under_way >= node.window || !HasBuffer()) return false;
    request.sent = true;
    request.sent_at = now_;
    ++node.under_way;
    LookAfter(request, std::min(LateAfter(node), kStoppedAfter));
    CountersOf(*request.step, request.plan().node).requests.fetch_add(1, std::memory_order_relaxed);
  }
  if (request.plan().path == Path::kOneSided) {
    const Result<bool> all_started = StartReads(request);
    if (!all_started.ok()) End(request, all_started.status());
    return !all_started.ok() || *all_started;
  }
  const Status sent = SendLookup(request);
  if (!sent.ok()) End(request, sent);
  return true;
}

bool LookupLoop::HasBuffer() const {
  return !free_buffers_.empty() || buffers_.size() < kSendBuffersMax;
}

net::SendBuffer* LookupLoop::TakeBuffer() {
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

Status LookupLoop::SendLookup(Request& request) {
  const NodeRequest& plan = request.plan();
  const Node& node = nodes_[plan.node];
  net::SendBuffer* buffer = TakeBuffer();
  if (buffer == nullptr) return ResourceExhausted("no memory for a send buffer");
  const TimePoint now = clock_.Now();
  std::byte* end = buffer->bytes().data();
  wire_layers_.clear();
  for (const Section& section : plan.sections) {
    const LayerPlan& layer = request.step->plan().layers()[section.layer_index];
    const TimePoint deadline = request.step->LayerDeadline(section.layer_index);
    const bool own_deadline = deadline < request.step->deadline();
    wire_layers_.push_back({section.layer_index, static_cast<uint32_t>(section.rows.size()),
                            own_deadline ? std::max(1u, BudgetMicros(deadline - now)) : 0});
    if (context_->id_bytes == 4) {
      WriteIds<uint32_t>(layer, section, end);
    } else {
      WriteIds<uint64_t>(layer, section, end);
    }
  }
  const std::span<const std::byte> ids(buffer->bytes().data(), end);
  net::LookupHeader header;
  header.session = node.control->welcome().session;
  header.request_id = request.id;
  header.epoch = epoch_;
  header.budget_us = BudgetMicros(request.step->deadline() - now);
  header.priority = static_cast<uint8_t>(request.step->priority());
  header.id_bytes = static_cast<uint8_t>(context_->id_bytes);
  net::EncodeLookup(header, wire_layers_, ids, header_);
  const Status sent =
      transport_->Send(node.peer, header_, buffer, ids.size(), [this, buffer](const Status&) {
        // A failed send shows as a lost peer, or as a deadline.
        free_buffers_.push_back(buffer);
      });
  if (!sent.ok()) free_buffers_.push_back(buffer);
  return sent;
}

// Starts reads for the request's rows as far as there are buffers; true when all are started.
Result<bool> LookupLoop::StartReads(Request& request) {
  const NodeRequest& plan = request.plan();
  const Node& node = nodes_[plan.node];
  const uint32_t stride = node.view.paths->arena.stored_row_bytes();
  const std::span<const Section> sections = plan.sections;
  const uint32_t rows_max =
      std::min(kPlacedRowsMax, static_cast<uint32_t>(net::kBodyBytesMax / stride));
  std::array<uint64_t, kPlacedRowsMax> ids, offsets;
  while (request.section < sections.size()) {
    if (!HasBuffer()) return false;
    const Section& section = sections[request.section];
    const auto section_rows = static_cast<uint32_t>(section.rows.size());
    const uint32_t count = std::min(rows_max, section_rows - request.first);
    request.step->plan().CopyIds(section, request.first, std::span(ids).first(count));
    RETURN_IF_ERROR(node.view.paths->arena.FindOffsets(
        section.layer_index, std::span(ids).first(count), std::span(offsets).first(count)));
    pieces_.clear();
    for (uint32_t i = 0; i < count; ++i) pieces_.push_back({offsets[i], stride, i * stride});
    if (free_reads_.empty()) {
      reads_.push_back(std::make_unique<ReadOperation>());
      free_reads_.push_back(reads_.back().get());
    }
    net::SendBuffer* buffer = TakeBuffer();
    if (buffer == nullptr) return ResourceExhausted("no memory for a read buffer");
    ReadOperation* operation = free_reads_.back();
    free_reads_.pop_back();
    *operation = {this, buffer, request.id, section, request.first, count};
    request.first += count;
    if (request.first == section_rows) {
      ++request.section;
      request.first = 0;
    }
    const uint64_t id = request.id;
    const Status started = transport_->Read(
        node.peer, pieces_, buffer,
        [operation](const Status& status) { operation->loop->OnRead(operation, status); });
    if (!started.ok()) {
      free_buffers_.push_back(buffer);
      free_reads_.push_back(operation);
      return started;
    }
    if (request.id != id) return true;  // ended by what was read at once
  }
  return true;
}

void LookupLoop::OnRead(ReadOperation* operation, const Status& status) {
  Request* request = requests_.Find(operation->request_id);
  if (request != nullptr) {
    Status placed = status;
    if (placed.ok()) {
      if (operation->count == request->rows_missing) Uncount(*request);
      const uint32_t stride = nodes_[request->plan().node].view.paths->arena.stored_row_bytes();
      std::array<const std::byte*, kPlacedRowsMax> addresses;
      for (uint32_t i = 0; i < operation->count; ++i) {
        addresses[i] = operation->buffer->bytes().data() + size_t{i} * stride;
      }
      placed = request->step->PlaceRows({request->plan().node, operation->section, operation->first,
                                         std::span(addresses).first(operation->count)},
                                        Path::kOneSided,
                                        CountersOf(*request->step, request->plan().node));
      if (placed.ok()) nodes_[request->plan().node].health.Heard(now_);
      request->rows_missing -= operation->count;
    }
    if (!placed.ok() || request->rows_missing == 0) End(*request, placed);
  }
  free_buffers_.push_back(operation->buffer);
  free_reads_.push_back(operation);
}

}  // namespace engram::client
