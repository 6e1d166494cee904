// A bounded cache of single stored rows, for rows read from the store. By row and not by page: the
// 14 neighbours of a row share nothing with it but a page, hashing has spread them.
//
// Eight ways a set. A row enters as the next to go and is kept once it is asked for again (a scan
// passes through without flushing the rest); a way asked for up to three times survives as many
// looks of the hand. All memory is taken at once.
//
// Any thread; a set is locked for one look or one copy.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"

namespace engram::memnode {

class RowCache {
 public:
  // As many rows as fit into `size_bytes` with their bookkeeping, at least one set.
  // RESOURCE_EXHAUSTED: memory.
  static Result<std::unique_ptr<RowCache>> Create(uint64_t size_bytes, uint32_t stored_row_bytes);

  // Copies the stored row to `out`.
  bool Get(uint32_t layer_index, uint64_t row, std::byte* out);
  void Put(uint32_t layer_index, uint64_t row, const std::byte* stored);

  uint64_t capacity_rows() const { return sets_.size() * kWays; }
  uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }
  uint64_t misses() const { return misses_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kWays = 8;
  static constexpr size_t kLocks = 256;
  struct Set {
    std::array<uint64_t, kWays> keys = {};  // 0: empty
    std::array<uint8_t, kWays> uses = {};   // since the hand last passed, at most 3
    uint8_t hand = 0;
  };
  struct alignas(64) Lock {
    std::mutex mutex;
  };

  RowCache(size_t set_count, uint32_t stored_row_bytes, AlignedBuffer rows);
  size_t SetOf(uint64_t key) const;
  std::byte* Slot(size_t set, size_t way);

  const uint32_t stored_row_bytes_;
  std::vector<Set> sets_;
  AlignedBuffer rows_;
  std::vector<Lock> locks_;
  std::atomic<uint64_t> hits_ = 0;
  std::atomic<uint64_t> misses_ = 0;
};

}  // namespace engram::memnode
