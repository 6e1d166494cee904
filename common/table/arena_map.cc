#include "common/table/arena_map.h"

#include <fmt/format.h>

#include "common/table/row_check.h"

namespace engram::table {
namespace {

constexpr uint64_t kLayerAlignment = 64;  // a cache line

}  // namespace

ArenaMap::ArenaMap(std::vector<Layer> layers, uint32_t row_bytes)
    : row_bytes_(row_bytes), stored_row_bytes_(StoredRowBytes(row_bytes)) {
  for (Layer& plan : layers) {
    Placed layer;
    layer.plan = std::move(plan);
    const LayerPartitions& cut = layer.plan.cut;
    layer.delta.assign(cut.partition_count, kNotOwned);
    for (const uint32_t partition : layer.plan.owned) {
      layer.delta[partition] = size_bytes_ - cut.FirstRow(partition) * stored_row_bytes_;
      CHECK_NE(layer.delta[partition], kNotOwned);
      size_bytes_ += cut.RowCount(partition) * stored_row_bytes_;
    }
    size_bytes_ = (size_bytes_ + kLayerAlignment - 1) / kLayerAlignment * kLayerAlignment;
    layers_.push_back(std::move(layer));
  }
}

uint64_t ArenaMap::PartitionOffset(uint32_t layer_index, uint32_t partition) const {
  const Placed& layer = layers_.at(layer_index);
  const uint64_t delta = layer.delta.at(partition);
  CHECK_NE(delta, kNotOwned);
  return delta + layer.plan.cut.FirstRow(partition) * stored_row_bytes_;
}

uint64_t ArenaMap::PartitionBytes(uint32_t layer_index, uint32_t partition) const {
  return layers_.at(layer_index).plan.cut.RowCount(partition) * stored_row_bytes_;
}

Status ArenaMap::WhyNot(const Placed& layer, uint64_t row) const {
  if (row >= layer.plan.cut.total_rows) {
    return OutOfRange(fmt::format("row {} of layer {}, which has {} rows", row, layer.plan.layer_id,
                                  layer.plan.cut.total_rows));
  }
  return FailedPrecondition(fmt::format("row {} of layer {} (partition {}) is not on this node",
                                        row, layer.plan.layer_id, layer.plan.cut.PartitionOf(row)));
}

// place(i, offset) for each row.
template <typename Place>
Status ArenaMap::FindAll(uint32_t layer_index, std::span<const uint64_t> rows, Place place) const {
  if (layer_index >= layers_.size()) {
    return OutOfRange(
        fmt::format("Engram layer index {}, the table set has {}", layer_index, layers_.size()));
  }
  const Placed& layer = layers_[layer_index];
  const LayerPartitions cut = layer.plan.cut;  // a copy stays in registers
  const uint64_t* delta = layer.delta.data();
  const uint64_t stride = stored_row_bytes_;
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t row = rows[i];
    if (row >= cut.total_rows) return WhyNot(layer, row);
    const uint64_t add = delta[cut.PartitionOf(row)];
    if (add == kNotOwned) return WhyNot(layer, row);
    place(i, add + row * stride);
  }
  return OkStatus();
}

Status ArenaMap::Find(uint32_t layer_index, std::span<const uint64_t> rows, const std::byte* base,
                      std::span<const std::byte*> addresses) const {
  CHECK_EQ(rows.size(), addresses.size());
  return FindAll(layer_index, rows,
                 [&](size_t i, uint64_t offset) { addresses[i] = base + offset; });
}

Status ArenaMap::FindOffsets(uint32_t layer_index, std::span<const uint64_t> rows,
                             std::span<uint64_t> offsets) const {
  CHECK_EQ(rows.size(), offsets.size());
  return FindAll(layer_index, rows, [&](size_t i, uint64_t offset) { offsets[i] = offset; });
}

}  // namespace engram::table
