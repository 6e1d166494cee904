// Fills memory with verified partitions, several at once: page CRCs, each partition's SHA-256, and
// every row sealed with its own check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "common/base/status.h"
#include "memnode/store/table_plan.h"
#include "memnode/store/table_reader.h"

namespace engram::memnode {

struct PartitionPlace {
  uint32_t layer_index = 0;
  uint32_t partition = 0;
  std::byte* stored = nullptr;  // RowCount(partition) stored rows
};

// All of the plan's partitions, layer after layer.
std::vector<PartitionPlace> OwnedPartitions(const TablePlan& plan);

struct PartitionLoadOptions {
  int threads = 0;  // 0: two a CPU: while one waits for the disk another one computes
  // A damaged partition may be repaired in the store and is then read once more; OK when it was.
  std::function<Status(uint32_t layer_index, uint32_t partition)> repair;
  // A partition is in memory and verified; on a loading thread.
  std::function<void(const PartitionPlace&)> on_loaded;
  std::function<bool()> cancelled;
};

// The first error ends it: TableReader::ReadPartition's, or CANCELLED.
Status LoadPartitions(const TableReader& reader, const std::vector<PartitionPlace>& places,
                      const PartitionLoadOptions& options);

}  // namespace engram::memnode
