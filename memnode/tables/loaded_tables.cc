#include "memnode/tables/loaded_tables.h"

#include "memnode/store/manifest.h"

namespace engram::memnode {

void LoadedTables::Add(const TablesPtr& tables) {
  const std::lock_guard lock(mutex_);
  std::erase_if(loaded_, [](const auto& other) { return other.expired(); });
  loaded_.push_back(tables);
}

std::vector<TablesPtr> LoadedTables::All() const {
  const std::lock_guard lock(mutex_);
  std::vector<TablesPtr> all;
  for (const auto& tables : loaded_) {
    if (TablesPtr alive = tables.lock()) all.push_back(std::move(alive));
  }
  return all;
}

TablesPtr LoadedTables::Find(TableSetId table_set) const {
  for (TablesPtr& tables : All()) {
    const table::TableIdentity& identity = tables->identity();
    if (TableSetIdOf(identity.model, identity.version) == table_set) return std::move(tables);
  }
  return nullptr;
}

bool LoadedTables::CopyRows(TableSetId table_set, uint32_t layer_index, uint64_t first_row,
                            uint64_t count, std::byte* out) const {
  const TablesPtr tables = Find(table_set);
  return tables != nullptr &&
         tables->CopyRows(layer_index, first_row, {out, count * tables->row_bytes()});
}

}  // namespace engram::memnode
