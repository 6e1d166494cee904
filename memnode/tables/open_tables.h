// Opens a table set of the store as tables to be served.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/table/placement.h"
#include "memnode/store/manifest.h"
#include "memnode/tables/arena.h"
#include "memnode/tables/memory_budget.h"
#include "memnode/tables/partial_tables.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

struct OpenTablesOptions {
  table::ClusterMap map;
  std::string member;
  ArenaOptions arena;
  // For the rows; null: whatever the share needs. With less than that, the rest is read from the
  // store.
  std::shared_ptr<MemoryBudget> memory;
  uint64_t send_buffer_bytes = 0;  // what the node takes besides, when it is judged what fits
  bool serve_while_loading = false;
  PartialOptions partial;         // its first four
  StoreKeeper* keeper = nullptr;  // as of StoredRows::Open
  int load_threads = 0;           // 0: two a CPU
  // Ends OpenTables with CANCELLED, within a partition or two; not what goes on after it. May be
  // null.
  const std::atomic<bool>* cancel = nullptr;
};

// The table set is complete; the store outlives its tables. Returns when the rows that have room
// are in memory and verified, or, serving while loading, at once. Errors: TableReader's, Arena's;
// FAILED_PRECONDITION when the store lacks partitions that this member owns; RESOURCE_EXHAUSTED,
// with the sum, when this machine or cgroup lacks the memory.
Result<std::shared_ptr<ServedTables>> OpenTables(RowStore& store, Manifest manifest,
                                                 const OpenTablesOptions& options,
                                                 obs::Metrics& metrics);

}  // namespace engram::memnode
