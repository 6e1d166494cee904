// Reads one table set out of a store: its own pages where it has them, else its base's (a delta
// holds changed pages only). Every page's CRC-32C is checked before a row leaves; damage is
// reported to `on_damage` and to the caller, and no byte of a damaged page is handed out.
//
// Immutable after Open; any thread. The store outlives it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/placement.h"
#include "memnode/store/manifest.h"
#include "memnode/store/row_store.h"

namespace engram::memnode {

class TableReader {
 public:
  // `layer_index`, `page`: what is damaged or missing; called on the reading thread.
  using OnDamage = std::function<void(uint32_t layer_index, uint64_t page, const Status& why)>;

  // FAILED_PRECONDITION: a base is missing; DATA_LOSS: a damaged manifest or delta record.
  static Result<std::unique_ptr<TableReader>> Open(RowStore& store, Manifest manifest,
                                                   const OnDamage& on_damage = nullptr);

  static constexpr int kBasesMax = 16;  // a longer chain of deltas is refused
  int base_count() const { return base_ == nullptr ? 0 : base_->base_count() + 1; }

  const Manifest& manifest() const { return manifest_; }
  uint32_t row_bytes() const { return row_bytes_; }
  const table::LayerPartitions& cut(uint32_t layer_index) const { return cuts_[layer_index]; }

  // Pages of a partition and rows of a page, counted over the whole layer.
  uint64_t FirstPage(uint32_t layer_index, uint32_t partition) const;
  uint64_t PageCount(uint32_t layer_index, uint32_t partition) const;
  uint64_t PageOfRow(uint32_t layer_index, uint64_t row) const;
  uint64_t FirstRowOfPage(uint32_t layer_index, uint64_t page) const;
  uint64_t RowCountOfPage(uint32_t layer_index, uint64_t page) const;

  // The table set whose file holds the page: this one, or a base.
  TableSetId HolderOf(uint32_t layer_index, uint64_t page) const;

  // The rows of one page; they lie in *scratch. One disk read.
  Result<std::span<const std::byte>> ReadPage(uint32_t layer_index, uint64_t page,
                                              std::string* scratch) const;

  // The rows of a held partition page by page, `first_row` counted within the partition, and at the
  // end the comparison with the partition's SHA-256. DATA_LOSS names layer, page or partition; rows
  // visited before it must then not be used.
  using Visitor = std::function<void(uint64_t first_row, std::span<const std::byte> rows)>;
  Status ReadPartition(uint32_t layer_index, uint32_t partition, const Visitor& visit) const;

 private:
  TableReader(RowStore& store, Manifest manifest, OnDamage on_damage);
  Status LoadChangedPages();
  bool Holds(uint32_t layer_index, uint64_t page) const;
  Result<std::span<const std::byte>> Decode(uint32_t layer_index, uint64_t page,
                                            std::span<const std::byte> bytes) const;
  Status Damaged(uint32_t layer_index, uint64_t page, const Status& why) const;
  Status VisitPages(uint32_t layer_index, uint64_t first, uint64_t count,
                    const RowStore::Visitor& visit) const;

  RowStore& store_;
  const Manifest manifest_;
  const TableSetId id_;
  const OnDamage on_damage_;
  uint32_t row_bytes_ = 0;
  std::vector<table::LayerPartitions> cuts_;
  std::unique_ptr<TableReader> base_;  // null: a full version
  // Delta only, per layer and partition: one bit a page, empty where nothing changed.
  std::vector<std::vector<std::string>> changed_;
};

// The record that says which pages of a partition a delta holds: bit i of byte i / 8, least
// significant first, for page i of the partition. Absent: none.
std::string ChangedPagesKey(TableSetId table_set, uint32_t layer_index, uint32_t partition);

}  // namespace engram::memnode
