// Damaged rows in memory: found by their checks, and written again from where they came.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "memnode/tables/served_tables.h"

namespace engram::memnode {
namespace {

constexpr size_t kRowsAtOnce = 64;  // addresses looked up together

bool IsSound(uint32_t layer_index, uint64_t row, const std::byte* stored, uint32_t row_bytes) {
  uint32_t check = 0;
  std::memcpy(&check, stored + row_bytes, sizeof(check));
  return table::RowCheck(layer_index, row, {stored, row_bytes}) == check;
}

// Calls `visit(row, address)` for rows [first, first + count) that are in memory; false when none
// is.
template <typename Visit>
bool ForRowsInMemory(const ServedTables& tables, uint32_t layer_index, uint64_t first,
                     uint64_t count, const Visit& visit) {
  bool any = false;
  std::array<uint64_t, kRowsAtOnce> rows;
  std::array<const std::byte*, kRowsAtOnce> addresses;
  for (uint64_t done = 0; done < count; done += kRowsAtOnce) {
    const auto some = static_cast<size_t>(std::min<uint64_t>(kRowsAtOnce, count - done));
    for (size_t i = 0; i < some; ++i) rows[i] = first + done + i;
    const auto in_use = tables.Use();
    if (!tables.Find(layer_index, std::span(rows).first(some), std::span(addresses).first(some))
             .ok()) {
      return false;
    }
    for (size_t i = 0; i < some; ++i) {
      if (addresses[i] == nullptr) continue;
      any = true;
      visit(rows[i], addresses[i]);
    }
  }
  return any;
}

// Writes `sound` over a damaged row of memory that is const to its readers. A reader may copy the
// row meanwhile: whatever it gets fails its check, or is sound. ThreadSanitizer is told so.
__attribute__((no_sanitize("thread"))) void WriteOverRow(const std::byte* row,
                                                         const std::byte* sound, size_t bytes) {
  auto* to = const_cast<volatile std::byte*>(row);
  for (size_t i = 0; i < bytes; ++i) to[i] = sound[i];
}

}  // namespace

bool ServedTables::RowIsSound(uint32_t layer_index, uint64_t row) const {
  bool sound = true;
  const bool in_memory =
      ForRowsInMemory(*this, layer_index, row, 1, [&](uint64_t, const std::byte* stored) {
        sound = IsSound(layer_index, row, stored, row_bytes());
      });
  return in_memory ? sound : !HasDamagedCopy(layer_index, row);
}

bool ServedTables::FindDamagedRows(uint32_t layer_index, uint32_t partition,
                                   std::vector<uint64_t>* damaged) const {
  if (memory_bytes() == 0) return false;  // not row by row
  const table::LayerPartitions& cut = plan().layers[layer_index].cut;
  return ForRowsInMemory(*this, layer_index, cut.FirstRow(partition), cut.RowCount(partition),
                         [&](uint64_t row, const std::byte* stored) {
                           if (!IsSound(layer_index, row, stored, row_bytes())) {
                             damaged->push_back(row);
                           }
                         });
}

Result<uint64_t> ServedTables::Reload(uint32_t layer_index, uint32_t partition,
                                      std::span<const uint64_t> damaged) const {
  const table::LayerPartitions& cut = plan().layers[layer_index].cut;
  const size_t stride = stored_row_bytes();
  std::vector<std::byte> stored(cut.RowCount(partition) * stride);
  RETURN_IF_ERROR(origin().Load({layer_index, partition, stored.data()}));
  const uint64_t first_row = cut.FirstRow(partition);
  uint64_t written = 0;
  ForRowsInMemory(*this, layer_index, first_row, cut.RowCount(partition),
                  [&](uint64_t row, const std::byte* address) {
                    const std::byte* sound = stored.data() + (row - first_row) * stride;
                    if (std::memcmp(address, sound, stride) == 0) return;  // as all sound rows are
                    WriteOverRow(address, sound, stride);
                    ++written;
                  });
  for (const uint64_t row : damaged) {
    if (ForgetDamagedCopy(layer_index, row)) ++written;
    if (RowIsSound(layer_index, row)) continue;
    return DataLoss(
        fmt::format("row {} is damaged again right after it was written: this memory "
                    "does not keep what is written to it",
                    row));
  }
  return written;
}

}  // namespace engram::memnode
