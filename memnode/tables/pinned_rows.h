// Rows kept in memory because a hot set names them (common/table/hot_set.h), of partitions that are
// not. Built once, then read by any thread: an open-addressing table over stored rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "memnode/store/table_reader.h"

namespace engram::memnode {

struct RowId {
  uint32_t layer_index = 0;
  uint64_t row = 0;
  auto operator<=>(const RowId&) const = default;
};

class PinnedRows {
 public:
  // Reads `rows` (no duplicates) from the store, page by page in order. Errors: TableReader's,
  // memory.
  static Result<std::unique_ptr<PinnedRows>> Read(const TableReader& reader,
                                                  std::vector<RowId> rows);
  // How many rows fit into `size_bytes`.
  static uint64_t RowsThatFit(uint64_t size_bytes, uint32_t stored_row_bytes);

  // The stored row, or null.
  const std::byte* Find(uint32_t layer_index, uint64_t row) const;
  uint64_t size() const { return size_; }
  uint64_t memory_bytes() const;

 private:
  struct Entry {
    uint64_t key = 0;  // 0: empty
    const std::byte* stored = nullptr;
  };

  PinnedRows() = default;
  size_t FirstProbe(uint64_t key) const;
  void Insert(const RowId& id, const std::byte* stored);

  uint64_t size_ = 0;
  std::vector<Entry> entries_;  // half full at most
  AlignedBuffer rows_;
};

}  // namespace engram::memnode
