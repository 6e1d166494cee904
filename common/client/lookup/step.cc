#include "common/client/lookup/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "common/table/row_check.h"

namespace engram::client {
namespace {

// Between looks at the clock while asleep, so that a clock moved by hand is noticed too.
constexpr Nanos kRecheck = std::chrono::milliseconds(20);
constexpr size_t kStepsPooledMax = 64;

}  // namespace

void NodeCounters::Add(Path path, uint64_t rows, uint32_t stored_row_bytes) {
  rows_fetched.fetch_add(rows, std::memory_order_relaxed);
  bytes_fetched.fetch_add(rows * stored_row_bytes, std::memory_order_relaxed);
  rows_by_path[static_cast<size_t>(path)].fetch_add(rows, std::memory_order_relaxed);
}

void NodeCounters::Reset() {
  rows_fetched = 0;
  bytes_fetched = 0;
  requests = 0;
  for (std::atomic<uint64_t>& rows : rows_by_path) rows = 0;
}

Step::Step(std::shared_ptr<const PlanContext> context, const Clock& clock, Nanos spin)
    : plan_(std::move(context)),
      clock_(clock),
      spin_(spin),
      layers_(plan_.context().layout.layers.size()) {}

Status Step::Plan(std::span<const LayerLookup> layers, const SubmitOptions& options,
                  Purpose purpose) {
  planned_ = finished_ = clock_.Now();
  deadline_ = options.deadline;
  priority_ = options.priority;
  purpose_ = purpose;
  RETURN_IF_ERROR(plan_.Make(layers));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerPlan& plan = plan_.layers()[i];
    if (!plan.asked) continue;
    Layer& layer = layers_[i];
    layer.arrived.assign(plan.rows.size(), 0);
    layer.missing = static_cast<uint32_t>(plan.rows.size());
    layer.deadline = std::min(deadline_, plan.deadline);
    layer.status = OkStatus();
    layer.done.store(plan.rows.empty(), std::memory_order_relaxed);
  }
  return OkStatus();
}

Status Step::PlaceRows(const ArrivedRows& arrived, Path path, NodeCounters& counters) {
  const PlanContext& context = plan_.context();
  const uint32_t row_bytes = context.layout.row_format.row_bytes();
  const Section& section = arrived.section;
  const size_t count = arrived.addresses.size();
  CHECK_LE(count, kPlacedRowsMax);
  const LayerPlan& plan = plan_.layers()[section.layer_index];
  Layer& layer = layers_[section.layer_index];
  const std::span<const uint32_t> indices =
      std::span(plan.by_node).subspan(section.first + arrived.first, count);
  std::array<uint64_t, kPlacedRowsMax> rows;
  std::array<uint32_t, kPlacedRowsMax> places;
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < count; ++i) {
    rows[i] = plan.rows[indices[i]];
    places[i] = plan.first_position[indices[i]];
    if (layer.arrived[indices[i]] == 0) continue;
    return DataLoss(fmt::format("row {} of layer {} was sent twice", rows[i],
                                context.LayerId(section.layer_index)));
  }
  counters.Add(path, count, table::StoredRowBytes(row_bytes));
  // Finished: failed, late for its deadline, or the caller has left. Its buffer is no longer ours.
  if (layer.done.load(std::memory_order_relaxed)) return OkStatus();
  const size_t good =
      context.check_rows
          ? table::CopyCheckedRows(section.layer_index, std::span(rows).first(count),
                                   arrived.addresses.data(), row_bytes, places.data(),
                                   plan.out.data())
          : table::CopyUncheckedRows(arrived.addresses, row_bytes, places.data(), plan.out.data());
  if (good < count) {
    context.ReportDamaged(section.layer_index, rows[good]);
    return DataLoss(fmt::format("row {} of layer {} came damaged, or another row in its place",
                                rows[good], context.LayerId(section.layer_index)));
  }
  Spread(plan, layer, indices);
  layer.missing -= static_cast<uint32_t>(count);
  if (layer.missing == 0) Finish(layer, OkStatus());
  return OkStatus();
}

// From each row's first place to the others it was asked for.
void Step::Spread(const LayerPlan& plan, Layer& layer, std::span<const uint32_t> indices) {
  const size_t row_bytes = plan_.context().layout.row_format.row_bytes();
  for (const uint32_t index : indices) {
    layer.arrived[index] = 1;
    const uint32_t first = plan.first_position[index];
    for (uint32_t at = plan.next_position[first]; at != kNoPosition; at = plan.next_position[at]) {
      std::memcpy(plan.out.data() + at * row_bytes, plan.out.data() + first * row_bytes, row_bytes);
    }
  }
}

void Step::Finish(Layer& layer, Status status) {
  layer.status = std::move(status);
  finished_ = clock_.Now();
  layer.done.store(true, std::memory_order_release);
  changed_.notify_all();
}

void Step::Fail(const NodeRequest& request, const Status& why) {
  const std::lock_guard lock(mutex_);
  for (const Section& section : plan_.SectionsOf(request)) {
    Layer& layer = layers_[section.layer_index];
    if (layer.done.load(std::memory_order_relaxed)) continue;
    const uint32_t missing =
        CountMissing(section.layer_index, section.first, section.first + section.count);
    if (missing == 0) continue;
    Finish(layer,
           Status(why.code(), fmt::format("memory node {}: {}; {} rows of layer {} are missing",
                                          context().node_labels[request.node], why.message(),
                                          missing, context().LayerId(section.layer_index))));
  }
}

// Of by_node[first .. end).
uint32_t Step::CountMissing(uint32_t layer_index, uint32_t first, uint32_t end) const {
  const LayerPlan& plan = plan_.layers()[layer_index];
  uint32_t missing = 0;
  for (uint32_t i = first; i < end; ++i) {
    missing += layers_[layer_index].arrived[plan.by_node[i]] == 0 ? 1u : 0u;
  }
  return missing;
}

std::string Step::DescribeMissing(uint32_t layer_index) const {
  const LayerPlan& plan = plan_.layers()[layer_index];
  std::string text;
  for (size_t node = 0; node + 1 < plan.node_first.size(); ++node) {
    const uint32_t missing =
        CountMissing(layer_index, plan.node_first[node], plan.node_first[node + 1]);
    if (missing == 0) continue;
    text += fmt::format("{}memory node {}: {}", text.empty() ? "" : ", ",
                        context().node_labels[node], missing);
  }
  return text;
}

Status Step::Wait(uint32_t layer_index) {
  if (!Asked(layer_index)) return NotAskedFor(layer_index);
  Layer& layer = layers_[layer_index];
  if (!layer.done.load(std::memory_order_acquire) && spin_ > Nanos::zero()) {
    const TimePoint end = std::min(layer.deadline, clock_.Now() + spin_);
    while (!layer.done.load(std::memory_order_acquire) && clock_.Now() < end) {
      std::this_thread::yield();
    }
  }
  std::unique_lock lock(mutex_);
  while (!layer.done.load(std::memory_order_relaxed)) {
    const TimePoint now = clock_.Now();
    if (now >= layer.deadline) {
      Finish(layer, DeadlineExceeded(
                        fmt::format("{} of {} rows of layer {} are missing at the deadline: {}",
                                    layer.missing, plan_.layers()[layer_index].rows.size(),
                                    context().LayerId(layer_index), DescribeMissing(layer_index))));
      break;
    }
    changed_.wait_for(lock, std::min<Nanos>(layer.deadline - now, kRecheck));
  }
  return layer.status;
}

bool Step::Ready(uint32_t layer_index) const {
  if (!Asked(layer_index)) return true;
  const Layer& layer = layers_[layer_index];
  return layer.done.load(std::memory_order_acquire) || clock_.Now() >= layer.deadline;
}

Nanos Step::took() const {
  const std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < layers_.size(); ++i) {
    if (Asked(i) && !layers_[i].done.load(std::memory_order_relaxed)) return Nanos::zero();
  }
  return finished_ - planned_;
}

void Step::Release() {
  {
    const std::lock_guard lock(mutex_);
    for (uint32_t i = 0; i < layers_.size(); ++i) {
      if (!Asked(i) || layers_[i].done.load(std::memory_order_relaxed)) continue;
      Finish(layers_[i], Cancelled("the lookup was given up"));
    }
  }
  const StepRef self = std::move(held_by_ticket_);  // may be the last
}

Ticket Step::MakeTicket(StepRef step) {
  std::unique_ptr<Step> pending(step.get());  // Release drops it, and deletes nothing
  pending->held_by_ticket_ = std::move(step);
  return Ticket(std::move(pending));
}

StepRef StepPool::Take() {
  std::unique_ptr<Step> step;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      step = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (step == nullptr) step = std::make_unique<Step>(context_, clock_, spin_);
  step->home_ = shared_from_this();
  return StepRef(step.release());
}

void intrusive_ptr_release(Step* step) {
  if (--step->references_ > 0) return;
  const std::shared_ptr<StepPool> home = std::move(step->home_);
  home->Return(std::unique_ptr<Step>(step));
}

void StepPool::Return(std::unique_ptr<Step> step) {
  const std::lock_guard lock(mutex_);
  if (free_.size() < kStepsPooledMax) free_.push_back(std::move(step));
}

}  // namespace engram::client
