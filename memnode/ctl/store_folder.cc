#include "memnode/ctl/store_folder.h"

#include <fmt/format.h>

#include <filesystem>

#include "memnode/store/rocks_store.h"

namespace engram::ctl {

Result<std::unique_ptr<memnode::RowStore>> OpenStoreFolder(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path + "/CURRENT", error)) {
    return NotFound(
        fmt::format("--store {} holds no store of a memory node (no file CURRENT in it)", path));
  }
  return memnode::OpenRocksStoreReadOnly(path);
}

}  // namespace engram::ctl
