// From disk to memory: makes sure that the store holds this node's partitions, importing them from
// the checkpoint when it does not, and fills the arena, verifying every page and every partition.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/table/identity.h"
#include "common/table/placement.h"
#include "memnode/arena.h"
#include "memnode/row_store.h"
#include "memnode/table_plan.h"

namespace engram::memnode {

struct LoadOptions {
  std::string model_path;  // may be absent when the store is complete
  std::string model_name;
  std::string model_version;
  table::ClusterMap map;
  std::string member;
  ArenaOptions arena;
};

struct LoadedTables {
  table::TableIdentity identity;  // with the content digest
  TablePlan plan;
  Arena arena;
  bool imported = false;  // by this call
};

// NOT_FOUND, INVALID_ARGUMENT: the checkpoint; FAILED_PRECONDITION: the store holds other tables
// under this name and version; DATA_LOSS: names the page or partition.
Result<LoadedTables> LoadTables(const LoadOptions& options, RowStore& store);

}  // namespace engram::memnode
