// Opens a store's folder for reading only, also while a node has it open; never creates it.
#pragma once

#include <memory>
#include <string>

#include "common/base/status.h"
#include "memnode/store/row_store.h"

namespace engram::ctl {

// NOT_FOUND when the folder holds no store.
Result<std::unique_ptr<memnode::RowStore>> OpenStoreFolder(const std::string& path);

}  // namespace engram::ctl
