// The fake RowStore: pages in a map, with faults on demand. For tests.
#pragma once

#include <memory>
#include <string>
#include <tuple>

#include "memnode/row_store.h"

namespace engram::memnode {

class MemoryStore : public RowStore {
 public:
  Result<std::map<TableSetId, std::string>> Manifests() override { return manifests_; }
  Status PutManifest(TableSetId table_set, const std::string& manifest) override;
  Status Drop(TableSetId table_set) override;
  Result<std::unique_ptr<PageWriter>> BeginImport(TableSetId table_set) override;
  Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first, uint64_t count,
                   const Visitor& visit) override;

  // Flips one bit in the middle of a stored page; it must exist.
  void CorruptPage(TableSetId table_set, uint32_t layer_index, uint64_t page);
  void LosePage(TableSetId table_set, uint32_t layer_index, uint64_t page);
  // The next read fails with this.
  void FailNextRead(Status status) { next_read_ = std::move(status); }
  // The next PutManifest fails with this: an import killed just before its end.
  void FailNextManifest(Status status) { next_manifest_ = std::move(status); }
  size_t page_count() const { return pages_.size(); }

 private:
  friend class MemoryPageWriter;
  using Key = std::tuple<TableSetId, uint32_t, uint64_t>;
  std::map<Key, std::string> pages_;
  std::map<TableSetId, std::string> manifests_;
  Status next_read_;
  Status next_manifest_;
};

}  // namespace engram::memnode
