// Checks a store's list of files (MANIFEST) and its last log before RocksDB opens them; part of
// rocks_store. RocksDB takes a list that seems cut short for the whole one, drops files that it
// does not name, and may abort the process over a damaged one.
#pragma once

#include <string>

#include "common/base/status.h"

namespace engram::memnode::rocks {

// DATA_LOSS names the damaged file of the store in folder `path`. A last entry that was cut short,
// as by a crash, is sound. OK when there is no store.
Status CheckLogs(const std::string& path);

}  // namespace engram::memnode::rocks
