#include "common/client/lookup/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "common/net/transport.h"
#include "common/net/wire.h"

namespace engram::client {

PlanContext MakePlanContext(const table::TableLayout& layout, const table::ClusterMap& map,
                            std::vector<std::string> node_labels) {
  PlanContext context;
  context.layout = layout;
  context.damage = std::make_shared<DamageReports>();
  context.node_labels = std::move(node_labels);
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    const uint64_t total_rows = layout.layers[i].total_rows;
    context.partitions.push_back(table::CutLayer(total_rows, layout.row_format.row_bytes()));
    if (total_rows > (uint64_t{1} << 32)) context.id_bytes = 8;
  }
  context.owners = table::OwnerTable(map, context.partitions);
  context.request_rows_max =
      std::min(net::kLookupRowsMax, static_cast<uint32_t>(net::kBodyBytesMax / context.id_bytes));
  return context;
}

LookupPlan::LookupPlan(std::shared_ptr<const PlanContext> context)
    : context_(std::move(context)), layers_(context_->layout.layers.size()) {}

Status LookupPlan::Make(std::span<const LayerLookup> layers, NodeCosts& costs) {
  rows_asked_ = 0;
  rows_distinct_ = 0;
  for (LayerPlan& plan : layers_) plan.asked = false;
  RETURN_IF_ERROR(CheckLookups(context_->layout, layers));
  for (const LayerLookup& lookup : layers) RETURN_IF_ERROR(PlanLayer(lookup, costs));
  MakeRequests();
  return OkStatus();
}

Status LookupPlan::PlanLayer(const LayerLookup& lookup, NodeCosts& costs) {
  LayerPlan& plan = layers_[lookup.layer_index];
  plan.asked = true;
  plan.out = lookup.out;
  plan.deadline = lookup.deadline;
  RETURN_IF_ERROR(RemoveDuplicates(lookup, plan));
  GroupByNode(lookup.layer_index, plan, costs);
  rows_asked_ += lookup.rows.size();
  rows_distinct_ += plan.rows.size();
  return OkStatus();
}

Status LookupPlan::RemoveDuplicates(const LayerLookup& lookup, LayerPlan& plan) {
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
                                    context_->LayerId(lookup.layer_index), total_rows));
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
void LookupPlan::GroupByNode(uint32_t layer_index, LayerPlan& plan, NodeCosts& costs) {
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
  const table::OwnerTable& table = context_->owners;
  owner_of_row_.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    const auto owners = table.Of(layer_index, partitions.PartitionOf(plan.rows[i]));
    uint16_t owner = owners[0];
    if (owners.size() > 1) {
      owner = *std::min_element(owners.begin(), owners.end(),
                                [&](uint16_t a, uint16_t b) { return costs[a] < costs[b]; });
      ++costs[owner];
    }
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
void LookupPlan::MakeRequests() {
  requests_.clear();
  sections_.clear();
  section_counts_.clear();
  for (uint32_t node = 0; node < context_->node_labels.size(); ++node) {
    NodeRequest request{.node = node};
    uint32_t sections = 0;
    const auto end_request = [&] {
      if (sections > 0) {
        requests_.push_back(request);
        section_counts_.push_back(sections);
      }
      request.rows = sections = 0;
    };
    for (uint32_t layer_index = 0; layer_index < layers_.size(); ++layer_index) {
      const LayerPlan& plan = layers_[layer_index];
      if (!plan.asked) continue;
      uint32_t first = plan.node_first[node];
      while (first < plan.node_first[node + 1]) {
        if (request.rows == context_->request_rows_max) end_request();
        const uint32_t count =
            std::min(plan.node_first[node + 1] - first, context_->request_rows_max - request.rows);
        sections_.push_back({layer_index, std::span(plan.by_node).subspan(first, count)});
        ++sections;
        request.rows += count;
        first += count;
      }
    }
    end_request();
  }
  size_t first = 0;  // only now do the sections stay where they are
  for (size_t i = 0; i < requests_.size(); ++i) {
    requests_[i].sections = std::span(sections_).subspan(first, section_counts_[i]);
    first += section_counts_[i];
  }
}

void LookupPlan::CopyIds(const Section& section, uint32_t first, std::span<uint64_t> rows) const {
  const LayerPlan& plan = layers_[section.layer_index];
  const uint32_t* index = section.rows.data() + first;
  for (uint64_t& row : rows) row = plan.rows[*index++];
}

}  // namespace engram::client
