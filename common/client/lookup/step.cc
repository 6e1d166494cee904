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
                  Purpose purpose, const NodeCosts& costs) {
  planned_ = finished_ = clock_.Now();
  deadline_ = options.deadline;
  priority_ = options.priority;
  purpose_ = purpose;
  detours_.clear();
  costs_ = costs;
  RETURN_IF_ERROR(plan_.Make(layers, costs_));
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
  const uint32_t layer_index = arrived.section.layer_index;
  const size_t count = arrived.addresses.size();
  CHECK_LE(count, kPlacedRowsMax);
  const LayerPlan& plan = plan_.layers()[layer_index];
  Layer& layer = layers_[layer_index];
  const std::span<const uint32_t> indices = arrived.section.rows.subspan(arrived.first, count);
  std::array<uint64_t, kPlacedRowsMax> rows;
  std::array<uint32_t, kPlacedRowsMax> places, fresh;
  std::array<const std::byte*, kPlacedRowsMax> addresses;
  size_t wanted = 0;
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t index = indices[i];
    if (layer.arrived[index] != 0) continue;
    rows[wanted] = plan.rows[index];
    places[wanted] = plan.first_position[index];
    addresses[wanted] = arrived.addresses[i];
    fresh[wanted++] = index;
  }
  if (wanted < count && context.owners.replicas() == 1) {
    return DataLoss(fmt::format("a row of layer {} was sent twice", context.LayerId(layer_index)));
  }
  counters.Add(path, count, table::StoredRowBytes(row_bytes));
  // Finished: failed, late for its deadline, or the caller has left. Its buffer is no longer ours.
  if (layer.done.load(std::memory_order_relaxed) || wanted == 0) return OkStatus();
  const size_t good =
      context.check_rows
          ? table::CopyCheckedRows(layer_index, std::span(rows).first(wanted), addresses.data(),
                                   row_bytes, places.data(), plan.out.data())
          : table::CopyUncheckedRows(std::span(addresses).first(wanted), row_bytes, places.data(),
                                     plan.out.data());
  if (good < wanted) {
    context.ReportDamaged(arrived.node, layer_index, rows[good]);
    return DataLoss(fmt::format("row {} of layer {} came damaged, or another row in its place",
                                rows[good], context.LayerId(layer_index)));
  }
  Spread(plan, layer, std::span(fresh).first(wanted));
  layer.missing -= static_cast<uint32_t>(wanted);
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
  for (const Section& section : request.sections) {
    Layer& layer = layers_[section.layer_index];
    if (layer.done.load(std::memory_order_relaxed)) continue;
    const uint32_t missing = CountMissing(section.layer_index, section.rows);
    if (missing == 0) continue;
    Finish(layer,
           Status(why.code(), fmt::format("memory node {}: {}; {} rows of layer {} are missing",
                                          context().node_labels[request.node], why.message(),
                                          missing, context().LayerId(section.layer_index))));
  }
}

bool Step::Complete(const NodeRequest& request) const {
  const std::lock_guard lock(mutex_);
  return std::all_of(request.sections.begin(), request.sections.end(), [&](const Section& section) {
    return layers_[section.layer_index].done.load(std::memory_order_relaxed) ||
           CountMissing(section.layer_index, section.rows) == 0;
  });
}

Result<std::span<const NodeRequest>> Step::MakeDetour(const NodeRequest& request,
                                                      NodeCosts& costs) {
  struct Wanted {
    uint16_t node;
    uint32_t layer_index;
    uint32_t row;
  };
  std::vector<Wanted> wanted;
  {
    const std::lock_guard lock(mutex_);
    for (const Section& section : request.sections) {
      const Layer& layer = layers_[section.layer_index];
      if (layer.done.load(std::memory_order_relaxed)) continue;
      const std::vector<uint64_t>& ids = plan_.layers()[section.layer_index].rows;
      for (const uint32_t row : section.rows) {
        if (layer.arrived[row] != 0) continue;
        const auto owners = context().OwnersOf(section.layer_index, ids[row]);
        const uint16_t node =
            *std::min_element(owners.begin(), owners.end(),
                              [&](uint16_t a, uint16_t b) { return costs[a] < costs[b]; });
        if (costs[node] >= kCannotServe) return Unavailable("no other owner of its rows answers");
        ++costs[node];
        wanted.push_back({node, section.layer_index, row});
      }
    }
  }
  if (wanted.empty()) return std::span<const NodeRequest>();
  std::stable_sort(wanted.begin(), wanted.end(), [](const Wanted& a, const Wanted& b) {
    return std::pair(a.node, a.layer_index) < std::pair(b.node, b.layer_index);
  });
  Detour& detour = *detours_.emplace_back(std::make_unique<Detour>());
  for (const Wanted& one : wanted) detour.rows.push_back(one.row);
  // A request has no more rows than the one it stands in for: it fits a message.
  std::vector<size_t> sections_of;
  for (size_t begin = 0; begin < wanted.size();) {
    size_t end = begin;
    while (end < wanted.size() && wanted[end].node == wanted[begin].node &&
           wanted[end].layer_index == wanted[begin].layer_index) {
      ++end;
    }
    if (detour.requests.empty() || detour.requests.back().node != wanted[begin].node) {
      detour.requests.push_back({.node = wanted[begin].node});
      sections_of.push_back(0);
    }
    detour.sections.push_back(
        {wanted[begin].layer_index, std::span(detour.rows).subspan(begin, end - begin)});
    detour.requests.back().rows += static_cast<uint32_t>(end - begin);
    ++sections_of.back();
    begin = end;
  }
  size_t first = 0;
  for (size_t i = 0; i < detour.requests.size(); ++i) {
    detour.requests[i].sections = std::span(detour.sections).subspan(first, sections_of[i]);
    first += sections_of[i];
  }
  return std::span<const NodeRequest>(detour.requests);
}

// Of these rows of the layer.
uint32_t Step::CountMissing(uint32_t layer_index, std::span<const uint32_t> rows) const {
  const std::vector<uint8_t>& arrived = layers_[layer_index].arrived;
  return static_cast<uint32_t>(
      std::count_if(rows.begin(), rows.end(), [&](uint32_t row) { return arrived[row] == 0; }));
}

std::string Step::DescribeMissing(uint32_t layer_index) const {
  const LayerPlan& plan = plan_.layers()[layer_index];
  std::string text;
  for (size_t node = 0; node + 1 < plan.node_first.size(); ++node) {
    const uint32_t first = plan.node_first[node];
    const uint32_t missing = CountMissing(
        layer_index, std::span(plan.by_node).subspan(first, plan.node_first[node + 1] - first));
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
