// Which partitions of a table set are in memory, and where, while not all are: during loading, or
// because the node's memory is smaller than its share. Counts the rows asked for by partition,
// which decides what stays.
//
// Any thread. Addresses are good while the lock of Use() is held: Withdraw waits for it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/table/arena_map.h"
#include "memnode/store/table_plan.h"

namespace engram::memnode {

class Residency {
 public:
  explicit Residency(const TablePlan& plan);

  [[nodiscard]] std::shared_lock<std::shared_mutex> Use() const {
    return std::shared_lock(in_use_);
  }
  // Where each stored row lies; null where its partition is not in memory. Errors as
  // ArenaMap::Find.
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const;

  // `first_row`: the partition's stored rows, which stay there until withdrawn.
  void Publish(uint32_t layer_index, uint32_t partition, const std::byte* first_row);
  // Returns when no gather uses the partition's memory.
  void Withdraw(uint32_t layer_index, uint32_t partition);
  bool resident(uint32_t layer_index, uint32_t partition) const;

  // Rows of this partition asked for since the last call.
  uint64_t TakeReads(uint32_t layer_index, uint32_t partition);

 private:
  struct Partition {
    std::atomic<const std::byte*> first_row = nullptr;
    mutable std::atomic<uint64_t> reads = 0;
  };

  table::ArenaMap map_;  // for what is owned, and its errors
  std::vector<std::vector<Partition>> partitions_;
  mutable std::shared_mutex in_use_;
};

}  // namespace engram::memnode
