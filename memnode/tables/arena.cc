#include "memnode/tables/arena.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "common/base/machine_limits.h"
#include "common/obs/log.h"
#include "common/table/row_check.h"
#include "common/table/row_copy.h"

namespace engram::memnode {
namespace {

constexpr size_t kGatherRows = 512;  // addresses computed at a time, on the stack
constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

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

namespace {

// Gathering takes two to three times as long from small pages, unless all rows are within one huge.
Result<AlignedBuffer> AllocateRows(uint64_t size_bytes, const ArenaOptions& options) {
  if (options.shared) {
    ASSIGN_OR_RETURN(AlignedBuffer memory,
                     AlignedBuffer::AllocateShared(size_bytes, options.pages));
    if (options.numa_node >= 0) RETURN_IF_ERROR(memory.BindToNuma(options.numa_node));
    if (options.pages == PageBacking::kSmall || size_bytes < kHugePageBytes) return memory;
    memory.UseHugePages();
    if (memory.backing() != PageBacking::kSmall) return memory;
    obs::LogWarn(fmt::format("the kernel has only small pages for shared rows; {}",
                             options.share_small_pages
                                 ? "gathering them takes two to three times as long"
                                 : "they are not shared, clients of this host use the network"));
    if (options.share_small_pages) return memory;
  }
  ASSIGN_OR_RETURN(AlignedBuffer memory, AlignedBuffer::Allocate(size_bytes, options.pages));
  if (options.numa_node >= 0) RETURN_IF_ERROR(memory.BindToNuma(options.numa_node));
  return memory;
}

}  // namespace

Result<Arena> Arena::Allocate(const TablePlan& plan, const ArenaOptions& options) {
  Arena arena;
  arena.map_ = plan.Map();
  auto memory = AllocateRows(arena.map_.size_bytes(), options);
  if (!memory.ok()) return memory.status().WithContext("memory for this node's rows");
  arena.memory_ = std::move(*memory);
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
