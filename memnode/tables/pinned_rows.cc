#include "memnode/tables/pinned_rows.h"

#include <algorithm>

#include "common/base/rng.h"
#include "common/table/row_check.h"
#include "memnode/tables/arena.h"

namespace engram::memnode {
namespace {

constexpr uint64_t kEntriesPerRow = 2;

uint64_t KeyOf(uint32_t layer_index, uint64_t row) {
  return (uint64_t{layer_index} + 1) << 48 | row;
}

}  // namespace

uint64_t PinnedRows::RowsThatFit(uint64_t size_bytes, uint32_t stored_row_bytes) {
  return size_bytes / (stored_row_bytes + kEntriesPerRow * sizeof(Entry));
}

uint64_t PinnedRows::memory_bytes() const {
  return entries_.size() * sizeof(Entry) + rows_.size_bytes();
}

size_t PinnedRows::FirstProbe(uint64_t key) const {
  return static_cast<size_t>((static_cast<unsigned __int128>(Mix64(key, 0)) * entries_.size()) >>
                             64);
}

void PinnedRows::Insert(const RowId& id, const std::byte* stored) {
  const uint64_t key = KeyOf(id.layer_index, id.row);
  size_t at = FirstProbe(key);
  while (entries_[at].key != 0) at = (at + 1) % entries_.size();
  entries_[at] = {key, stored};
}

const std::byte* PinnedRows::Find(uint32_t layer_index, uint64_t row) const {
  if (entries_.empty()) return nullptr;
  const uint64_t key = KeyOf(layer_index, row);
  for (size_t at = FirstProbe(key); entries_[at].key != 0; at = (at + 1) % entries_.size()) {
    if (entries_[at].key == key) return entries_[at].stored;
  }
  return nullptr;
}

Result<std::unique_ptr<PinnedRows>> PinnedRows::Read(const TableReader& reader,
                                                     std::vector<RowId> rows) {
  std::sort(rows.begin(), rows.end());
  const size_t row_bytes = reader.row_bytes();
  const size_t stride = table::StoredRowBytes(reader.row_bytes());
  std::unique_ptr<PinnedRows> pinned(new PinnedRows());
  pinned->size_ = rows.size();
  pinned->entries_.resize(rows.size() * kEntriesPerRow);
  if (rows.empty()) return pinned;
  auto memory = AlignedBuffer::Allocate(rows.size() * stride, PageBacking::kTransparent);
  if (!memory.ok()) return memory.status().WithContext("memory for pinned rows");
  pinned->rows_ = std::move(*memory);
  std::string scratch;
  std::span<const std::byte> page_rows;
  RowId page = {UINT32_MAX, 0};  // the one in scratch, by its number
  std::byte* stored = pinned->rows_.data();
  for (const RowId& id : rows) {
    const RowId wanted = {id.layer_index, reader.PageOfRow(id.layer_index, id.row)};
    if (wanted != page) {
      ASSIGN_OR_RETURN(page_rows, reader.ReadPage(wanted.layer_index, wanted.row, &scratch));
      page = wanted;
    }
    const uint64_t index = id.row - reader.FirstRowOfPage(id.layer_index, page.row);
    SealRows(id.layer_index, id.row, page_rows.subspan(index * row_bytes, row_bytes),
             reader.row_bytes(), stored);
    pinned->Insert(id, stored);
    stored += stride;
  }
  return pinned;
}

}  // namespace engram::memnode
