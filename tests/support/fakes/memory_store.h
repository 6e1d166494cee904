// The fake RowStore: pages and records in maps, with faults on demand. For tests.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "memnode/store/row_store.h"

namespace engram::memnode {

class MemoryStore : public RowStore {
 public:
  Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) override;
  Status WriteRecords(std::span<const RecordChange> changes) override;
  Result<std::unique_ptr<PageWriter>> NewFile(TableSetId table_set) override;
  Status Ingest(std::vector<std::unique_ptr<PageWriter>> files) override;
  Status DropPages(TableSetId table_set) override;
  Result<std::map<TableSetId, uint64_t>> AllPageBytes() override;
  Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first, uint64_t count,
                   const Visitor& visit) override;
  Status ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                  std::string* bytes) override;

  // Flips one bit in the middle of a stored page; it must exist.
  void CorruptPage(TableSetId table_set, uint32_t layer_index, uint64_t page);
  void LosePage(TableSetId table_set, uint32_t layer_index, uint64_t page);
  // The next read of pages fails with this.
  void FailNextRead(Status status);
  // The next ingestion fails with this, and changes nothing.
  void FailNextIngest(Status status);
  // The next WriteRecords that touches a key with this prefix fails, and changes nothing: what a
  // process killed just before it would leave.
  void FailNextRecord(std::string prefix, Status status);
  size_t page_count() const;
  // Calls of ReadPage so far.

 private:
  friend class MemoryPageWriter;
  using Key = std::tuple<TableSetId, uint32_t, uint64_t>;
  Status FindPage(const Key& key, std::string* bytes);

  mutable std::mutex mutex_;
  std::map<Key, std::string> pages_;
  std::map<std::string, std::string> records_;
  Status next_read_;
  Status next_ingest_;
  Status next_record_;
  std::string next_record_prefix_;
};

}  // namespace engram::memnode
