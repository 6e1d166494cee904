// The rows this node owns, in one piece of huge-page memory. An address is arithmetic plus one
// lookup in a table of partitions; there is no index of rows. Written once by the loader, then read
// by any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "memnode/table_plan.h"

namespace engram::memnode {

// Copies rows to out, one after the other, fetching the memory of later rows ahead of time.
void CopyRows(std::span<const std::byte* const> rows, uint32_t row_bytes, std::byte* out);

class Arena {
 public:
  static Result<Arena> Allocate(const TablePlan& plan, PageBacking wanted);

  // The rows of an owned partition, to be filled by the loader.
  std::span<std::byte> PartitionRows(uint32_t layer_index, uint32_t partition);

  // Where each row lies: addresses.size() == rows.size(). OUT_OF_RANGE: past the layer's end, or no
  // such layer; FAILED_PRECONDITION: another member owns it. Names the first such row.
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const;

  // Find, then CopyRows; nothing is copied unless every row is here.
  // out.size() == rows.size() * row_bytes().
  Status GatherRows(uint32_t layer_index, std::span<const uint64_t> rows,
                    std::span<std::byte> out) const;

  uint32_t row_bytes() const { return row_bytes_; }
  uint32_t layer_count() const { return static_cast<uint32_t>(layers_.size()); }
  uint64_t size_bytes() const { return memory_.size_bytes(); }
  PageBacking backing() const { return memory_.backing(); }

 private:
  static constexpr uint32_t kNotOwned = UINT32_MAX;
  struct Layer {
    int layer_id = 0;
    table::LayerPartitions cut;
    uint64_t reciprocal = 0;       // of rows_per_partition, see PartitionOf
    uint64_t partition_bytes = 0;  // of a full one
    size_t offset = 0;             // of slot 0 in memory_
    std::vector<uint32_t> slot_of_partition;

    uint32_t PartitionOf(uint64_t row) const;
  };

  Status WhyNot(const Layer& layer, uint64_t row) const;

  uint32_t row_bytes_ = 0;
  std::vector<Layer> layers_;
  AlignedBuffer memory_;
};

}  // namespace engram::memnode
