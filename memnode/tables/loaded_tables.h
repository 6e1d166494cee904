// The tables this node has in memory now: an index, which keeps none of them alive. Any thread.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "memnode/store/row_store.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

using TablesPtr = std::shared_ptr<const ServedTables>;

// Verified copies of rows, for repairs of a store.
class RowCopies {
 public:
  virtual ~RowCopies() = default;
  // Copies rows [first_row, first_row + count) of a layer, all of one partition; false when they
  // are not there. Any thread.
  virtual bool CopyRows(TableSetId table_set, uint32_t layer_index, uint64_t first_row,
                        uint64_t count, std::byte* out) const = 0;
};

class LoadedTables final : public RowCopies {
 public:
  void Add(const TablesPtr& tables);
  std::vector<TablesPtr> All() const;
  TablesPtr Find(TableSetId table_set) const;  // null: not in memory
  bool CopyRows(TableSetId table_set, uint32_t layer_index, uint64_t first_row, uint64_t count,
                std::byte* out) const override;

 private:
  mutable std::mutex mutex_;
  std::vector<std::weak_ptr<const ServedTables>> loaded_;  // guarded by mutex_
};

}  // namespace engram::memnode
