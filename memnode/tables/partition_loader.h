// Fills memory with partitions, several at once.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "common/base/status.h"
#include "memnode/store/table_plan.h"
#include "memnode/tables/arena.h"
#include "memnode/tables/row_origin.h"

namespace engram::memnode {

// All of the plan's partitions, layer after layer.
std::vector<PartitionPlace> OwnedPartitions(const TablePlan& plan);
// The same, each with its place in the arena, which is of this plan.
std::vector<PartitionPlace> PlacesIn(Arena& arena, const TablePlan& plan);

struct PartitionLoadOptions {
  int threads = 0;  // 0: two a CPU: while one waits for the disk another one computes
  // A partition is in memory and verified; on a loading thread.
  std::function<void(const PartitionPlace&)> on_loaded;
  const std::atomic<bool>* cancel = nullptr;  // CANCELLED within a partition after it is set
};

// The first error ends it: RowOrigin::Load's, or CANCELLED.
Status LoadPartitions(const RowOrigin& origin, const std::vector<PartitionPlace>& places,
                      const PartitionLoadOptions& options);

}  // namespace engram::memnode
