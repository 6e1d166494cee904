#include "common/client/lookup/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>

#include "common/net/transport.h"
#include "common/net/wire.h"
#include "common/table/row_check.h"

namespace engram::client {
namespace {

// Between looks at the clock while asleep, so that a clock moved by hand is noticed too.
constexpr Nanos kRecheck = std::chrono::milliseconds(20);

}  // namespace

PlanContext MakePlanContext(const table::TableLayout& layout, const table::ClusterMap& map,
                            std::vector<std::string> node_labels) {
  PlanContext context;
  context.layout = layout;
  context.damage = std::make_shared<DamageReports>();
  context.node_labels = std::move(node_labels);
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    const uint64_t total_rows = layout.layers[i].total_rows;
    context.partitions.push_back(table::CutLayer(total_rows, layout.row_format.row_bytes()));
    context.owners.push_back(
        table::OwnersOfLayer(map, i, context.partitions.back().partition_count));
    if (total_rows > (uint64_t{1} << 32)) context.id_bytes = 8;
  }
  context.request_rows_max =
      std::min(net::kLookupRowsMax, static_cast<uint32_t>(net::kBodyBytesMax / context.id_bytes));
  return context;
}

Step::Step(std::shared_ptr<const PlanContext> context)
    : context_(std::move(context)), layers_(context_->layout.layers.size()) {}

Status Step::Plan(std::span<const LayerLookup> layers, const SubmitOptions& options) {
  planned_ = finished_ = Clock::Real().Now();
  deadline_ = options.deadline;
  priority_ = options.priority;
  probe_ = false;
  rows_asked_ = 0;
  rows_distinct_ = 0;
  for (LayerPlan& plan : layers_) plan.asked = false;
  for (const LayerLookup& lookup : layers) RETURN_IF_ERROR(PlanLayer(lookup));
  MakeRequests();
  return OkStatus();
}

Status Step::FinishAtOnce(std::span<const LayerLookup> layers) {
  planned_ = TimePoint();
  rows_asked_ = 0;
  requests_.clear();
  for (LayerPlan& plan : layers_) plan.asked = false;
  for (const LayerLookup& lookup : layers) {
    RETURN_IF_ERROR(CheckLookup(lookup));
    LayerPlan& plan = layers_[lookup.layer_index];
    plan.asked = true;
    plan.deadline = TimePoint::max();
    plan.status = OkStatus();
    plan.done.store(true, std::memory_order_release);
    rows_asked_ += lookup.rows.size();
  }
  rows_distinct_ = rows_asked_;
  return OkStatus();
}

Status Step::CheckLookup(const LayerLookup& lookup) const {
  if (lookup.layer_index >= layers_.size()) {
    return InvalidArgument(fmt::format("lookup in Engram layer index {}, the table set has {}",
                                       lookup.layer_index, layers_.size()));
  }
  const size_t row_bytes = context_->layout.row_format.row_bytes();
  if (layers_[lookup.layer_index].asked) {
    return InvalidArgument(fmt::format("layer {} twice in a lookup", LayerId(lookup.layer_index)));
  }
  if (lookup.rows.size() >= kNoPosition || lookup.out.size() != lookup.rows.size() * row_bytes) {
    return InvalidArgument(fmt::format("buffer of {} bytes for {} rows of {} bytes in layer {}",
                                       lookup.out.size(), lookup.rows.size(), row_bytes,
                                       LayerId(lookup.layer_index)));
  }
  return OkStatus();
}

Status Step::PlanLayer(const LayerLookup& lookup) {
  RETURN_IF_ERROR(CheckLookup(lookup));
  LayerPlan& plan = layers_[lookup.layer_index];
  plan.asked = true;
  plan.out = lookup.out;
  plan.deadline = std::min(deadline_, lookup.deadline);
  RETURN_IF_ERROR(RemoveDuplicates(lookup, plan));
  GroupByNode(lookup.layer_index, plan);
  plan.arrived.assign(plan.rows.size(), 0);
  plan.missing = static_cast<uint32_t>(plan.rows.size());
  plan.status = OkStatus();
  plan.done.store(plan.rows.empty(), std::memory_order_relaxed);
  rows_asked_ += lookup.rows.size();
  rows_distinct_ += plan.rows.size();
  return OkStatus();
}

Status Step::RemoveDuplicates(const LayerLookup& lookup, LayerPlan& plan) {
  const auto count = static_cast<uint32_t>(lookup.rows.size());
  const uint64_t total_rows = context_->layout.layers[lookup.layer_index].total_rows;
  distinct_.Start(count);
  plan.rows.resize(count);
  plan.first_position.resize(count);
  plan.next_position.resize(count);
  uint32_t found = 0;
  for (uint32_t position = 0; position < count; ++position) {
    const uint64_t row = lookup.rows[position];
    if (row >= total_rows) {
      return OutOfRange(fmt::format("row {} of layer {}, which has {} rows", row,
                                    LayerId(lookup.layer_index), total_rows));
    }
    const auto [index, is_new] = distinct_.Insert(row);
    if (is_new) {
      plan.rows[found] = row;
      plan.first_position[found++] = position;
      plan.next_position[position] = kNoPosition;
    } else {  // goes in front of the places known so far
      plan.next_position[position] = plan.first_position[index];
      plan.first_position[index] = position;
    }
  }
  plan.rows.resize(found);
  plan.first_position.resize(found);
  return OkStatus();
}

// A counting sort by owner; within a node rows keep their order.
void Step::GroupByNode(uint32_t layer_index, LayerPlan& plan) {
  const size_t nodes = context_->node_labels.size();
  const auto count = static_cast<uint32_t>(plan.rows.size());
  plan.by_node.resize(count);
  plan.node_first.assign(nodes + 1, 0);
  if (nodes == 1) {
    std::iota(plan.by_node.begin(), plan.by_node.end(), 0u);
    plan.node_first[1] = count;
    return;
  }
  const table::LayerPartitions partitions = context_->partitions[layer_index];
  const std::vector<uint16_t>& owners = context_->owners[layer_index];
  owner_of_row_.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    const uint16_t owner = owners[partitions.PartitionOf(plan.rows[i])];
    owner_of_row_[i] = owner;
    ++plan.node_first[owner + 1u];
  }
  for (size_t node = 0; node < nodes; ++node) plan.node_first[node + 1] += plan.node_first[node];
  for (uint32_t i = 0; i < count; ++i) plan.by_node[plan.node_first[owner_of_row_[i]]++] = i;
  // The fill moved every start to the next node's; move them back.
  std::rotate(plan.node_first.begin(), plan.node_first.end() - 1, plan.node_first.end());
  plan.node_first[0] = 0;
  plan.node_first[nodes] = count;
}

// One request a node, the earliest layer first, cut only where a message is full.
void Step::MakeRequests() {
  requests_.clear();
  sections_.clear();
  for (uint32_t node = 0; node < context_->node_labels.size(); ++node) {
    NodeRequest request;
    const auto begin_request = [&] {
      request = {};
      request.node = node;
      request.first_section = static_cast<uint32_t>(sections_.size());
    };
    const auto end_request = [&] {
      if (request.section_count > 0) requests_.push_back(request);
      begin_request();
    };
    begin_request();
    for (uint32_t layer_index = 0; layer_index < layers_.size(); ++layer_index) {
      const LayerPlan& plan = layers_[layer_index];
      if (!plan.asked) continue;
      uint32_t first = plan.node_first[node];
      while (first < plan.node_first[node + 1]) {
        if (request.rows == context_->request_rows_max) end_request();
        const uint32_t count =
            std::min(plan.node_first[node + 1] - first, context_->request_rows_max - request.rows);
        sections_.push_back({layer_index, first, count});
        ++request.section_count;
        request.rows += count;
        first += count;
      }
    }
    end_request();
  }
}

void Step::CopyIds(const Section& section, uint32_t first, std::span<uint64_t> rows) const {
  const LayerPlan& plan = layers_[section.layer_index];
  const uint32_t* index = plan.by_node.data() + section.first + first;
  for (uint64_t& row : rows) row = plan.rows[*index++];
}

Status Step::PlaceRows(const ArrivedRows& arrived, Path path, NodeCounters& counters) {
  const uint32_t row_bytes = context_->layout.row_format.row_bytes();
  const Section& section = arrived.section;
  const size_t count = arrived.addresses.size();
  CHECK_LE(count, kPlacedRowsMax);
  LayerPlan& plan = layers_[section.layer_index];
  const std::span<const uint32_t> indices =
      std::span(plan.by_node).subspan(section.first + arrived.first, count);
  std::array<uint64_t, kPlacedRowsMax> rows;
  std::array<uint32_t, kPlacedRowsMax> places;
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < count; ++i) {
    rows[i] = plan.rows[indices[i]];
    places[i] = plan.first_position[indices[i]];
    if (plan.arrived[indices[i]] == 0) continue;
    return DataLoss(
        fmt::format("row {} of layer {} was sent twice", rows[i], LayerId(section.layer_index)));
  }
  counters.rows_fetched.fetch_add(count, std::memory_order_relaxed);
  counters.bytes_fetched.fetch_add(count * table::StoredRowBytes(row_bytes),
                                   std::memory_order_relaxed);
  counters.rows_by_path[static_cast<size_t>(path)].fetch_add(count, std::memory_order_relaxed);
  // Finished: failed, late for its deadline, or the caller has left. Its buffer is no longer ours.
  if (plan.done.load(std::memory_order_relaxed)) return OkStatus();
  const size_t good =
      context_->check_rows
          ? table::CopyCheckedRows(section.layer_index, std::span(rows).first(count),
                                   arrived.addresses.data(), row_bytes, places.data(),
                                   plan.out.data())
          : table::CopyUncheckedRows(arrived.addresses, row_bytes, places.data(), plan.out.data());
  if (good < count) {
    context_->ReportDamaged(section.layer_index, rows[good]);
    return DataLoss(fmt::format("row {} of layer {} came damaged, or another row in its place",
                                rows[good], LayerId(section.layer_index)));
  }
  Spread(plan, indices);
  plan.missing -= static_cast<uint32_t>(count);
  if (plan.missing == 0) Finish(plan, OkStatus());
  return OkStatus();
}

// From each row's first place to the others it was asked for.
void Step::Spread(LayerPlan& plan, std::span<const uint32_t> indices) {
  const size_t row_bytes = context_->layout.row_format.row_bytes();
  for (const uint32_t index : indices) {
    plan.arrived[index] = 1;
    const uint32_t first = plan.first_position[index];
    for (uint32_t at = plan.next_position[first]; at != kNoPosition; at = plan.next_position[at]) {
      std::memcpy(plan.out.data() + at * row_bytes, plan.out.data() + first * row_bytes, row_bytes);
    }
  }
}

void Step::Finish(LayerPlan& plan, Status status) {
  plan.status = std::move(status);
  finished_ = Clock::Real().Now();
  plan.done.store(true, std::memory_order_release);
  changed_.notify_all();
}

void Step::Fail(const NodeRequest& request, const Status& why) {
  const std::lock_guard lock(mutex_);
  for (const Section& section : SectionsOf(request)) {
    LayerPlan& plan = layers_[section.layer_index];
    if (plan.done.load(std::memory_order_relaxed)) continue;
    uint32_t missing = 0;
    for (uint32_t i = section.first; i < section.first + section.count; ++i) {
      missing += plan.arrived[plan.by_node[i]] == 0 ? 1u : 0u;
    }
    if (missing == 0) continue;
    Finish(plan,
           Status(why.code(), fmt::format("memory node {}: {}; {} rows of layer {} are missing",
                                          context_->node_labels[request.node], why.message(),
                                          missing, LayerId(section.layer_index))));
  }
}

std::string Step::DescribeMissing(uint32_t layer_index) const {
  const LayerPlan& plan = layers_[layer_index];
  std::string text;
  for (size_t node = 0; node + 1 < plan.node_first.size(); ++node) {
    uint32_t missing = 0;
    for (uint32_t i = plan.node_first[node]; i < plan.node_first[node + 1]; ++i) {
      missing += plan.arrived[plan.by_node[i]] == 0 ? 1u : 0u;
    }
    if (missing == 0) continue;
    text += fmt::format("{}memory node {}: {}", text.empty() ? "" : ", ",
                        context_->node_labels[node], missing);
  }
  return text;
}

Status Step::Wait(uint32_t layer_index, const Clock& clock, Nanos spin) {
  if (layer_index >= layers_.size() || !layers_[layer_index].asked) {
    return InvalidArgument(
        fmt::format("this lookup did not ask for Engram layer index {}", layer_index));
  }
  LayerPlan& plan = layers_[layer_index];
  if (!plan.done.load(std::memory_order_acquire) && spin > Nanos::zero()) {
    const TimePoint end = std::min(plan.deadline, clock.Now() + spin);
    while (!plan.done.load(std::memory_order_acquire) && clock.Now() < end)
      std::this_thread::yield();
  }
  std::unique_lock lock(mutex_);
  while (!plan.done.load(std::memory_order_relaxed)) {
    const TimePoint now = clock.Now();
    if (now >= plan.deadline) {
      Finish(plan, DeadlineExceeded(fmt::format(
                       "{} of {} rows of layer {} are missing at the deadline: {}", plan.missing,
                       plan.rows.size(), LayerId(layer_index), DescribeMissing(layer_index))));
      break;
    }
    changed_.wait_for(lock, std::min<Nanos>(plan.deadline - now, kRecheck));
  }
  return plan.status;
}

bool Step::Done(uint32_t layer_index) const {
  if (layer_index >= layers_.size() || !layers_[layer_index].asked) return true;
  return layers_[layer_index].done.load(std::memory_order_acquire);
}

bool Step::Ready(uint32_t layer_index, const Clock& clock) const {
  return Done(layer_index) || clock.Now() >= layers_[layer_index].deadline;
}

Nanos Step::took() const {
  const std::lock_guard lock(mutex_);
  const bool all = std::all_of(layers_.begin(), layers_.end(), [](const LayerPlan& plan) {
    return !plan.asked || plan.done.load(std::memory_order_relaxed);
  });
  return all && planned_ != TimePoint() ? Nanos(finished_ - planned_) : Nanos::zero();
}

void Step::Detach() {
  const std::lock_guard lock(mutex_);
  for (LayerPlan& plan : layers_) {
    if (plan.asked && !plan.done.load(std::memory_order_relaxed)) {
      Finish(plan, Cancelled("the lookup was given up"));
    }
  }
}

}  // namespace engram::client
