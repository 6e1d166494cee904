// How the durable store sets RocksDB up, and what that costs; part of rocks_store.
#pragma once

#include <rocksdb/options.h>

#include <string>
#include <vector>

#include "common/base/status.h"

namespace engram::memnode::rocks {

inline constexpr size_t kBlockBytes = 4096;  // one page a block

rocksdb::ColumnFamilyOptions RecordsOptions();
rocksdb::ColumnFamilyOptions PagesOptions();

// `path` exists. Also raises this process's limit of open files as far as it may.
rocksdb::DBOptions StoreOptions(const std::string& path);
// The same, leaving no trace in the folder.
rocksdb::DBOptions ReadOnlyOptions(const std::string& path);
// Starts the background threads that RocksDB would start when it first needs them, where a limit of
// threads that is reached ends the process; and has Open use no more threads than there are to be
// had. RESOURCE_EXHAUSTED names the limit.
Status StartThreads(rocksdb::DBOptions& options);

// For files of pages. Past the page cache it takes a third less of the processor, and the disk is
// never idle before the sync.
rocksdb::Options WriterOptions();
rocksdb::EnvOptions WriterEnvironment(bool direct);

}  // namespace engram::memnode::rocks
