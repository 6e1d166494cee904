// Once in a table set's life on a node: the checkpoint's tables go to the store, page by page.
#pragma once

#include "common/base/status.h"
#include "common/client/checkpoint_tables.h"
#include "memnode/manifest.h"
#include "memnode/row_store.h"
#include "memnode/table_plan.h"

namespace engram::memnode {

// Writes the plan's partitions to the store and the manifest last; replaces what the store held
// under this table set. Reads every row of the checkpoint, also those of other members (about
// 1 GB/s a core, SHA-256 bound), so that all nodes agree on the content digest. Memory: one
// partition, at most 16 MiB.
Result<Manifest> ImportTables(const client::CheckpointTables& tables,
                              const table::TableIdentity& identity, const table::ClusterMap& map,
                              const TablePlan& plan, RowStore& store);

}  // namespace engram::memnode
