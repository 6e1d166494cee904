#include "memnode/arena.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/base/machine_limits.h"
#include "common/table/row_check.h"
#include "common/table/row_copy.h"

namespace engram::memnode {
namespace {

constexpr size_t kGatherRows = 512;  // addresses computed at a time, on the stack

}  // namespace

void SealRows(uint32_t layer_index, uint64_t first_row, std::span<const std::byte> rows,
              uint32_t row_bytes, std::byte* stored) {
  const size_t count = rows.size() / row_bytes;
  CHECK_EQ(rows.size(), count * row_bytes);
  const size_t stride = table::StoredRowBytes(row_bytes);
  for (size_t i = 0; i < count; ++i, stored += stride) {
    std::memcpy(stored, rows.data() + i * row_bytes, row_bytes);
    table::SealRow(layer_index, first_row + i, {stored, stride});
  }
}

Status CheckRowsFit(uint64_t size_bytes, PageBacking pages, uint64_t send_buffer_bytes) {
  const MachineLimits limits = ReadMachineLimits();
  const bool reserved = pages == PageBacking::kHugeTlb && limits.huge_pages_bytes >= size_bytes;
  const std::array<MemoryUse, 2> parts = {
      {{"rows", reserved ? 0 : size_bytes}, {"send buffers", send_buffer_bytes}}};
  return CheckFits(parts, limits,
                   "set arena.budget_mib to less (rows beyond it are read from the store), or give "
                   "this node more memory");
}

Result<Arena> Arena::Allocate(const TablePlan& plan, const ArenaOptions& options) {
  Arena arena;
  arena.map_ = plan.Map();
  const uint64_t size_bytes = arena.map_.size_bytes();
  auto memory = options.shared ? AlignedBuffer::AllocateShared(size_bytes, options.pages)
                               : AlignedBuffer::Allocate(size_bytes, options.pages);
  if (!memory.ok()) return memory.status().WithContext("memory for this node's rows");
  arena.memory_ = std::move(*memory);
  if (options.numa_node >= 0) RETURN_IF_ERROR(arena.memory_.BindToNuma(options.numa_node));
  return arena;
}

void Arena::PutRows(uint32_t layer_index, uint32_t partition, uint64_t first,
                    std::span<const std::byte> rows) {
  const table::LayerPartitions& cut = map_.layer(layer_index).cut;
  CHECK_LE(first + rows.size() / row_bytes(), cut.RowCount(partition));
  SealRows(layer_index, cut.FirstRow(partition) + first, rows, row_bytes(),
           PartitionRows(layer_index, partition) + first * stored_row_bytes());
}

Status Arena::GatherRows(uint32_t layer_index, std::span<const uint64_t> rows,
                         std::span<std::byte> out) const {
  const size_t bytes = row_bytes();
  CHECK_EQ(out.size(), rows.size() * bytes);
  std::array<const std::byte*, kGatherRows> addresses;
  for (size_t first = 0; first < rows.size(); first += kGatherRows) {
    const auto some = rows.subspan(first, std::min(kGatherRows, rows.size() - first));
    const std::span<const std::byte*> found = std::span(addresses).first(some.size());
    RETURN_IF_ERROR(Find(layer_index, some, found));
    table::CopyRows(found, bytes, out.data() + first * bytes);
  }
  return OkStatus();
}

}  // namespace engram::memnode
