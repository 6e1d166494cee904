// Keys, errors and files of pages of the durable store; part of rocks_store.
#pragma once

#include <rocksdb/slice.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/status.h>

#include <span>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "memnode/store/row_store.h"

namespace engram::memnode::rocks {

// Table set, layer, page, big-endian, so that iteration is in order.
inline constexpr size_t kPageKeyBytes = 20;
struct PageKey {
  PageKey(TableSetId table_set, uint32_t layer_index, uint64_t page);
  rocksdb::Slice slice() const { return {text, kPageKeyBytes}; }
  std::string ToString() const { return {text, kPageKeyBytes}; }
  char text[kPageKeyBytes];
};

TableSetId TableSetOf(std::string_view page_key);

// Keys of pages, both included.
struct Span {
  std::string first, last;

  bool Overlaps(const Span& other) const { return other.first <= last && first <= other.last; }
  bool Covers(const Span& other) const { return first <= other.first && other.last <= last; }
};

// One line: what was tried, on what, why not, and what to do.
Status FromRocks(const rocksdb::Status& status, std::string_view what, const std::string& path);
// The same of opening a store.
Status FromOpen(const rocksdb::Status& status, const std::string& path);
// DATA_LOSS that names the page. `status` ok: it is missing.
Status BadPage(const rocksdb::Status& status, uint32_t layer_index, uint64_t page,
               const std::string& path);
class RocksPageWriter : public PageWriter {
 public:
  RocksPageWriter(std::string path, TableSetId table_set, bool direct);
  ~RocksPageWriter() override;  // ingestion moves the file away; otherwise it goes with its writer
  Status Open();
  Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) override;
  Status Finish() override;
  const std::string& path() const { return path_; }
  bool finished() const { return finished_; }
  const Span& span() const { return span_; }

 private:
  const std::string path_;
  const TableSetId table_set_;
  rocksdb::SstFileWriter writer_;
  bool finished_ = false;
  Span span_;
};

}  // namespace engram::memnode::rocks
