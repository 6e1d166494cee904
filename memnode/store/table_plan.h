// What one node holds of a table set: how each layer is cut, and which partitions are its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/arena_map.h"
#include "common/table/identity.h"
#include "common/table/placement.h"

namespace engram::memnode {

struct LayerPlan {
  int layer_id = 0;
  table::LayerPartitions cut;
  std::vector<uint32_t> owned;  // ascending

  uint64_t PagesPerPartition() const { return cut.rows_per_partition / cut.rows_per_page; }
};

struct TablePlan {
  uint32_t row_bytes = 0;
  std::vector<LayerPlan> layers;

  uint64_t OwnedRows() const;
  uint64_t TotalRows() const;
  table::ArenaMap Map() const;
};

// Pages are stored in files of whole partitions: partition p of a layer lies in file p /
// PartitionsPerFile, so that a damaged file can be rebuilt by itself. About 32 MiB of rows a file.
uint32_t PartitionsPerFile(const table::LayerPartitions& cut, uint32_t row_bytes);

// INVALID_ARGUMENT for a row encoding this build does not know.
Result<table::RowFormat> FormatOf(const table::TableIdentity& identity);

// Errors as FormatOf. `member` is one of map.members.
Result<TablePlan> MakePlan(const table::TableIdentity& identity, const table::ClusterMap& map,
                           const std::string& member);

}  // namespace engram::memnode
