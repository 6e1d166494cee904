// Numbers the distinct row ids of one list in order of first use: open addressing, stamped, so that
// starting over costs nothing and no row allocates.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/base/rng.h"

namespace engram::client {

class RowSet {
 public:
  // Forgets everything; up to `rows_max` inserts follow.
  void Start(size_t rows_max) {
    const size_t wanted = std::bit_ceil(2 * std::max<size_t>(rows_max, 8));
    mask_ = wanted - 1;  // of a small list, slots that stay in the first-level cache
    if (slots_.size() < wanted || ++stamp_ == 0) {
      slots_.assign(std::max(wanted, slots_.size()), Slot{});
      stamp_ = 1;
    }
    count_ = 0;
  }

  // The row's number and whether it is new.
  std::pair<uint32_t, bool> Insert(uint64_t row) {
    size_t at = Mix64(row) & mask_;
    while (slots_[at].stamp == stamp_ && slots_[at].row != row) at = (at + 1) & mask_;
    if (slots_[at].stamp == stamp_) return {slots_[at].index, false};
    slots_[at] = {row, count_, stamp_};
    return {count_++, true};
  }

  uint32_t count() const { return count_; }

 private:
  struct Slot {
    uint64_t row = 0;
    uint32_t index = 0;
    uint32_t stamp = 0;  // the slot is taken when this is the current one
  };
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  uint32_t stamp_ = 0;
  uint32_t count_ = 0;
};

}  // namespace engram::client
