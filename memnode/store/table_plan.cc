#include "memnode/store/table_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/table/owners.h"

namespace engram::memnode {

Result<table::RowFormat> FormatOf(const table::TableIdentity& identity) {
  for (const table::RowEncoding encoding : table::kRowEncodings) {
    if (table::RowEncodingName(encoding) == identity.row_encoding) {
      return table::RowFormat{encoding, static_cast<int>(identity.head_dim)};
    }
  }
  return InvalidArgument(
      fmt::format("table set {} has rows encoded as '{}', which this build does "
                  "not know",
                  identity.model, identity.row_encoding));
}

uint32_t PartitionsPerFile(const table::LayerPartitions& cut, uint32_t row_bytes) {
  constexpr uint64_t kFileBytes = 33 << 20;  // two of the largest partitions
  const uint64_t partition_bytes = cut.rows_per_partition * row_bytes;
  return static_cast<uint32_t>(std::clamp<uint64_t>(kFileBytes / partition_bytes, 1, 1 << 16));
}

uint64_t TablePlan::OwnedRows() const {
  uint64_t rows = 0;
  for (const LayerPlan& layer : layers) {
    for (const uint32_t partition : layer.owned) rows += layer.cut.RowCount(partition);
  }
  return rows;
}

uint64_t TablePlan::TotalRows() const {
  uint64_t rows = 0;
  for (const LayerPlan& layer : layers) rows += layer.cut.total_rows;
  return rows;
}

table::ArenaMap TablePlan::Map() const {
  std::vector<table::ArenaMap::Layer> placed;
  for (const LayerPlan& layer : layers) placed.push_back({layer.layer_id, layer.cut, layer.owned});
  return table::ArenaMap(std::move(placed), row_bytes);
}

Result<TablePlan> MakePlan(const table::TableIdentity& identity, const table::ClusterMap& map,
                           const std::string& member) {
  const auto self = std::find(map.members.begin(), map.members.end(), member);
  CHECK(self != map.members.end()) << member << " is no member";
  const auto self_index = static_cast<uint16_t>(self - map.members.begin());
  ASSIGN_OR_RETURN(const table::RowFormat format, FormatOf(identity));
  TablePlan plan;
  std::vector<table::LayerPartitions> cuts;
  plan.row_bytes = format.row_bytes();
  for (uint32_t i = 0; i < identity.layers.size(); ++i) {
    LayerPlan layer;
    layer.layer_id = identity.layers[i].layer_id;
    layer.cut = table::CutLayer(identity.layers[i].total_rows, plan.row_bytes);
    cuts.push_back(layer.cut);
    plan.layers.push_back(std::move(layer));
  }
  const table::OwnerTable owners(map, cuts);
  for (uint32_t i = 0; i < plan.layers.size(); ++i) {
    plan.layers[i].owned = owners.OwnedBy(self_index, i);
  }
  return plan;
}

}  // namespace engram::memnode
