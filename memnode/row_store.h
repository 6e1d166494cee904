// RowStore: the seam under the loader. Durable pages of rows keyed by (table set, layer, page), and
// one manifest a table set, written last: a table set without a manifest does not exist.
// Real: rocks_store.h. Fake, with faults on demand: memory_store.h.
//
// Threads: any one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "common/base/status.h"

namespace engram::memnode {

using TableSetId = uint64_t;

// Pages of one import. Destroying it unfinished leaves no table set behind.
class PageWriter {
 public:
  virtual ~PageWriter() = default;
  // Strictly ascending (layer_index, page).
  virtual Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) = 0;
  // All pages are durable when it returns. At least one Put before.
  virtual Status Finish() = 0;
};

class RowStore {
 public:
  virtual ~RowStore() = default;

  // The manifests of all complete table sets.
  virtual Result<std::map<TableSetId, std::string>> Manifests() = 0;
  // Completes a table set; durable when it returns.
  virtual Status PutManifest(TableSetId table_set, const std::string& manifest) = 0;
  // Removes the manifest first, then the pages; also what an interrupted import left. No error when
  // there is nothing.
  virtual Status Drop(TableSetId table_set) = 0;

  // The table set must have been dropped before.
  virtual Result<std::unique_ptr<PageWriter>> BeginImport(TableSetId table_set) = 0;

  // Calls `visit` for pages [first, first + count) of a layer in order, and stops at its first
  // error. DATA_LOSS names the layer and the page that is missing or unreadable.
  using Visitor = std::function<Status(uint64_t page, std::span<const std::byte> bytes)>;
  virtual Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first,
                           uint64_t count, const Visitor& visit) = 0;
};

}  // namespace engram::memnode
