// A bounded cache of single stored rows, for rows read from the store. By row and not by page: the
// 14 neighbours of a row share nothing with it but a page, hashing has spread them.
//
// Eight ways a set, two of them for rows that are new (S3-FIFO, by set). A new row moves on to the
// other six when it is asked for again before its turn ends, or soon after: a set remembers which
// rows left last. So rows read once, which are most, pass through without flushing the rest. Of the
// six a clock drops one; asked for up to three times, a row survives as many looks of the hand. All
// memory is taken at once.
//
// Hits in % (tests/bench/row_cache_bench.cc; second half of the reads): this / one clock over eight
// ways / LRU of as many rows / the best rows in hindsight, never changed. "Text": English prose by
// DeepSeek-V3's tokenizer, 8.4 M reads of 4.6 M rows.
//                            16,384 rows                  262,144 rows
//   Zipf 0.8, 16 M rows      19.9 / 13.2 / 12.3 / 23.1    36.0 / 30.6 / 29.1 / 47.9
//   Zipf 0.99, 16 M rows     54.7 / 49.1 / 47.8 / 58.2    70.2 / 67.8 / 66.7 / 78.5
//   text                     28.2 / 25.8 / 25.0 / 24.6    39.5 / 37.5 / 37.0 / 42.2
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

  // Whether the row is here and its bytes do not match its check.
  bool IsDamaged(uint32_t layer_index, uint64_t row);
  // False when it was not here.
  bool Forget(uint32_t layer_index, uint64_t row);

  uint64_t capacity_rows() const { return sets_.size() * kWays; }
  uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }
  uint64_t misses() const { return misses_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kWays = 8;
  static constexpr size_t kNewWays = 2;  // the first ones
  static constexpr size_t kGoneCount = 8;
  static constexpr size_t kLocks = 256;
  struct Set {
    std::array<uint64_t, kWays> keys = {};       // 0: empty
    std::array<uint8_t, kWays> uses = {};        // since it came or the hand last passed, at most 3
    std::array<uint16_t, kGoneCount> gone = {};  // tags of new rows that left unused; 0: none
    uint8_t hand = kNewWays;
    uint8_t next_new = 0;
    uint8_t next_gone = 0;
  };
  struct alignas(64) Lock {
    std::mutex mutex;
  };

  RowCache(size_t set_count, uint32_t stored_row_bytes, AlignedBuffer rows);
  size_t SetOf(uint64_t key) const;
  std::byte* Slot(size_t set, size_t way);
  // Of the set locked: a way for a row that was asked for again, and the way of the new row whose
  // turn ends, after that row has moved on or left.
  static size_t FreeKeptWay(Set& set);
  size_t FreeNewWay(size_t index);

  const uint32_t stored_row_bytes_;
  std::vector<Set> sets_;
  AlignedBuffer rows_;
  std::vector<Lock> locks_;
  std::atomic<uint64_t> hits_ = 0;
  std::atomic<uint64_t> misses_ = 0;
};

}  // namespace engram::memnode
