// Where rows lie in one member's memory: its owned partitions, layer after layer, partitions
// ascending, every row stored with its check (row_check.h). The node fills and reads its arena by
// it; a client that maps the arena, or reads it by RDMA, computes the same addresses from the
// cluster map alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/table/placement.h"

namespace engram::table {

class ArenaMap {
 public:
  struct Layer {
    int layer_id = 0;  // for messages
    LayerPartitions cut;
    std::vector<uint32_t> owned;  // partitions, ascending
  };
  ArenaMap() = default;
  ArenaMap(std::vector<Layer> layers, uint32_t row_bytes);

  uint32_t row_bytes() const { return row_bytes_; }
  uint32_t stored_row_bytes() const { return stored_row_bytes_; }
  uint32_t layer_count() const { return static_cast<uint32_t>(layers_.size()); }
  uint64_t size_bytes() const { return size_bytes_; }
  const Layer& layer(uint32_t layer_index) const { return layers_[layer_index].plan; }

  // Of an owned partition: where its first row lies, and the rows' bytes together.
  uint64_t PartitionOffset(uint32_t layer_index, uint32_t partition) const;
  uint64_t PartitionBytes(uint32_t layer_index, uint32_t partition) const;

  // Where each stored row lies. OUT_OF_RANGE: past the layer's end, or no such layer;
  // FAILED_PRECONDITION: another member owns it. Names the first such row.
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows, const std::byte* base,
              std::span<const std::byte*> addresses) const;
  Status FindOffsets(uint32_t layer_index, std::span<const uint64_t> rows,
                     std::span<uint64_t> offsets) const;

 private:
  struct Placed {
    Layer plan;
    // Per partition: what to add to row * stored_row_bytes, modulo 2^64; kNotOwned: not here.
    std::vector<uint64_t> delta;
  };
  static constexpr uint64_t kNotOwned = UINT64_MAX;

  template <typename Place>
  Status FindAll(uint32_t layer_index, std::span<const uint64_t> rows, Place place) const;
  Status WhyNot(const Placed& layer, uint64_t row) const;

  uint32_t row_bytes_ = 0;
  uint32_t stored_row_bytes_ = 0;
  uint64_t size_bytes_ = 0;
  std::vector<Placed> layers_;
};

}  // namespace engram::table
