// Damaged rows in memory: found by their checks, and written again from a sound copy.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "memnode/tables/partition_loader.h"
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
  if (computed()) return true;
  bool sound = true;
  const bool in_memory =
      ForRowsInMemory(*this, layer_index, row, 1, [&](uint64_t, const std::byte* stored) {
        sound = IsSound(layer_index, row, stored, row_bytes());
      });
  if (!in_memory && tier_ != nullptr) sound = !tier_->HasDamagedCopy(layer_index, row);
  return sound;
}

bool ServedTables::FindDamagedRows(uint32_t layer_index, uint32_t partition,
                                   std::vector<uint64_t>* damaged) const {
  if (computed()) return false;
  const table::LayerPartitions& cut = plan_.layers[layer_index].cut;
  return ForRowsInMemory(*this, layer_index, cut.FirstRow(partition), cut.RowCount(partition),
                         [&](uint64_t row, const std::byte* stored) {
                           if (!IsSound(layer_index, row, stored, row_bytes())) {
                             damaged->push_back(row);
                           }
                         });
}

// Its stored rows, from the store, or computed again.
Result<std::vector<std::byte>> ServedTables::SoundPartition(uint32_t layer_index,
                                                            uint32_t partition) const {
  const table::LayerPartitions& cut = plan_.layers[layer_index].cut;
  const uint64_t count = cut.RowCount(partition);
  std::vector<std::byte> stored(count * stored_row_bytes());
  if (reader_ == nullptr) {
    if (!rule_) return FailedPrecondition("these tables have no store to load rows from");
    for (uint64_t i = 0; i < count; ++i) {
      ComputeRow(layer_index, cut.FirstRow(partition) + i,
                 std::span(stored).subspan(i * stored_row_bytes(), stored_row_bytes()));
    }
    return stored;
  }
  PartitionLoadOptions load;
  load.threads = 1;
  load.repair = repair_;
  RETURN_IF_ERROR(LoadPartitions(*reader_, {{layer_index, partition, stored.data()}}, load));
  return stored;
}

// The rows that differ in memory; a sound row never does.
uint64_t ServedTables::WriteOver(uint32_t layer_index, uint64_t first_row,
                                 std::span<const std::byte> stored) const {
  const size_t stride = stored_row_bytes();
  uint64_t written = 0;
  ForRowsInMemory(*this, layer_index, first_row, stored.size() / stride,
                  [&](uint64_t row, const std::byte* address) {
                    const std::byte* sound = stored.data() + (row - first_row) * stride;
                    if (std::memcmp(address, sound, stride) == 0) return;
                    WriteOverRow(address, sound, stride);
                    ++written;
                  });
  return written;
}

Result<uint64_t> ServedTables::Reload(uint32_t layer_index, uint32_t partition,
                                      std::span<const uint64_t> damaged) const {
  ASSIGN_OR_RETURN(const std::vector<std::byte> stored, SoundPartition(layer_index, partition));
  const uint64_t first_row = plan_.layers[layer_index].cut.FirstRow(partition);
  uint64_t written = WriteOver(layer_index, first_row, stored);
  for (const uint64_t row : damaged) {
    if (tier_ != nullptr && tier_->ForgetDamagedCopy(layer_index, row)) ++written;
    if (RowIsSound(layer_index, row)) continue;
    return DataLoss(
        fmt::format("row {} is damaged again right after it was written: this memory "
                    "does not keep what is written to it",
                    row));
  }
  return written;
}

}  // namespace engram::memnode
