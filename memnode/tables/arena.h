// The rows this node owns, in one piece of huge-page memory, each stored with its check
// (common/table/row_check.h). An address is arithmetic plus one look into a table of partitions;
// there is no index of rows. Written once by the loader, then read by any thread, and by clients on
// this host when it is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "common/table/arena_map.h"
#include "memnode/store/table_plan.h"

namespace engram::memnode {

struct ArenaOptions {
  PageBacking pages = PageBacking::kHugeTlb;
  bool shared = false;  // other processes may map it
  // False: what can be shared in small pages only, though others are wanted, is not shared.
  bool share_small_pages = true;
  int numa_node = -1;  // -1: where the kernel puts it
};

// Writes rows, numbered from first_row on in their layer, as stored rows to `stored`.
void SealRows(uint32_t layer_index, uint64_t first_row, std::span<const std::byte> rows,
              uint32_t row_bytes, std::byte* stored);

// RESOURCE_EXHAUSTED, with the sum, when this machine or cgroup lacks the memory for `size_bytes`
// of rows and `send_buffer_bytes` besides. Rows in reserved huge pages are not counted.
Status CheckRowsFit(uint64_t size_bytes, PageBacking pages, uint64_t send_buffer_bytes);

class Arena {
 public:
  // RESOURCE_EXHAUSTED: memory; FAILED_PRECONDITION: the NUMA node.
  static Result<Arena> Allocate(const TablePlan& plan, const ArenaOptions& options);

  // Rows of an owned partition, from its `first` row on, to be filled by the loader: seals them.
  void PutRows(uint32_t layer_index, uint32_t partition, uint64_t first,
               std::span<const std::byte> rows);

  // An owned partition's stored rows, for a loader that seals them by itself (SealRows).
  std::byte* PartitionRows(uint32_t layer_index, uint32_t partition) {
    return memory_.data() + map_.PartitionOffset(layer_index, partition);
  }

  // Where each stored row lies: addresses.size() == rows.size(). Errors as ArenaMap::Find.
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const {
    return map_.Find(layer_index, rows, memory_.data(), addresses);
  }

  // The rows themselves, without their checks: out.size() == rows.size() * row_bytes(). Errors as
  // Find; rows before the bad one may have been copied.
  Status GatherRows(uint32_t layer_index, std::span<const uint64_t> rows,
                    std::span<std::byte> out) const;

  uint32_t row_bytes() const { return map_.row_bytes(); }
  uint32_t stored_row_bytes() const { return map_.stored_row_bytes(); }
  uint32_t layer_count() const { return map_.layer_count(); }
  uint64_t size_bytes() const { return memory_.size_bytes(); }
  PageBacking backing() const { return memory_.backing(); }
  std::span<const std::byte> bytes() const { return memory_.bytes(); }
  int shared_fd() const { return memory_.shared_fd(); }  // -1: not shared

 private:
  table::ArenaMap map_;
  AlignedBuffer memory_;
};

}  // namespace engram::memnode
