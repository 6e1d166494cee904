// RowStore: the seam under everything that lasts. One store a node holds
//   pages    of rows, keyed (table set, layer, page), written as whole sorted files and never
//            changed afterwards, only replaced or dropped;
//   records  small values under text keys: manifests, the catalog of versions, import progress,
//            changed pages of deltas, scrub state. A node needs no other file to restart.
// Real: rocks_store.h. Fake, with faults on demand: tests/support/fakes/memory_store.h.
//
// Threads: any, several at once; a PageWriter belongs to one thread at a time.
// Errors: DATA_LOSS names the page that is missing or damaged; RESOURCE_EXHAUSTED: the disk is
// full; FAILED_PRECONDITION: it cannot be written or read, and why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace engram::memnode {

using TableSetId = uint64_t;

// One sorted file of pages, invisible until ingested. Destroying it leaves nothing behind.
class PageWriter {
 public:
  virtual ~PageWriter() = default;
  // Strictly ascending (layer_index, page).
  virtual Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) = 0;
  // All bytes are on disk when it returns; nothing may be put afterwards. At least one Put before.
  virtual Status Finish() = 0;
};

struct RecordChange {
  std::string key;
  std::optional<std::string> value;  // nullopt: remove the record
};

class RowStore {
 public:
  virtual ~RowStore() = default;

  // All records whose key starts with `prefix`, in the order of their keys.
  virtual Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) = 0;
  // All of them or, after a crash too, none. They are durable when it returns, also in a store that
  // loses its log.
  virtual Status WriteRecords(std::span<const RecordChange> changes) = 0;
  // The same of what can be made again (progress, places, hints): durable in the log only, cheaper.
  virtual Status WriteProgress(std::span<const RecordChange> changes) {
    return WriteRecords(changes);
  }
  // As WriteRecords, for the records of a drop: it may use a full disk's reserve, which DropPages
  // makes again.
  virtual Status WriteDrop(std::span<const RecordChange> changes) { return WriteRecords(changes); }

  virtual Result<std::unique_ptr<PageWriter>> NewFile(TableSetId table_set) = 0;
  // Makes the pages of finished files visible, all or none, durably. Pages that are there already
  // are replaced, also unreadable ones, when their whole file's range is covered. The files of one
  // call do not overlap.
  virtual Status Ingest(std::vector<std::unique_ptr<PageWriter>> files) = 0;
  // Removes all pages of a table set, and gives the disk space back. No error when there are none.
  virtual Status DropPages(TableSetId table_set) = 0;
  // Why changes would fail now, as far as it is known without making one. May wait for the disk.
  virtual Status CheckWritable() { return OkStatus(); }
  // What they take on disk, of every table set that has any.
  virtual Result<std::map<TableSetId, uint64_t>> AllPageBytes() = 0;

  // Calls `visit` for pages [first, first + count) of a layer in order, and stops at its first
  // error. Reads ahead.
  using Visitor = std::function<Status(uint64_t page, std::span<const std::byte> bytes)>;
  virtual Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first,
                           uint64_t count, const Visitor& visit) = 0;
  // One page, in one disk read; blocks. Replaces *bytes (capacity is kept).
  virtual Status ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                          std::string* bytes) = 0;
};

}  // namespace engram::memnode
