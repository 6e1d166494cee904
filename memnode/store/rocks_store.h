// The durable RowStore: one RocksDB a node. Pages are bulk-loaded as sorted SST files and ingested,
// never written through the memtable; manifests are synced puts. The only place that includes
// RocksDB.
#pragma once

#include <memory>
#include <string>

#include "memnode/store/row_store.h"

namespace engram::memnode {

// Opens or creates the store in folder `path`, and keeps `reserve_bytes` of the disk for dropping
// (disk_reserve.h). FAILED_PRECONDITION when the folder cannot be created or written, or another
// process has the store open.
Result<std::unique_ptr<RowStore>> OpenRocksStore(const std::string& path,
                                                 uint64_t reserve_bytes = 0);

// For tools, also while a node has the store open: sees what was there when it was opened; writing
// is an error. NOT_FOUND when there is no store.
Result<std::unique_ptr<RowStore>> OpenRocksStoreReadOnly(const std::string& path);

}  // namespace engram::memnode
