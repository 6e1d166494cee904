// A bounded first-in first-out of request ids that never allocates after it was made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/check.h"

namespace engram::client {

class IdRing {
 public:
  explicit IdRing(size_t capacity = 0) : items_(capacity) {}
  bool empty() const { return count_ == 0; }
  bool full() const { return count_ == items_.size(); }
  uint64_t Front() const {
    CHECK_GT(count_, 0u);
    return items_[first_];
  }
  void PushBack(uint64_t item) {
    CHECK(!full());
    items_[(first_ + count_++) % items_.size()] = item;
  }
  void PopFront() {
    CHECK_GT(count_, 0u);
    first_ = (first_ + 1) % items_.size();
    --count_;
  }
  // Keeps those for which keep(id), in order; returns how many went.
  template <typename Keep>
  size_t Compact(Keep keep) {
    size_t kept = 0;
    for (size_t i = 0; i < count_; ++i) {
      const uint64_t item = items_[(first_ + i) % items_.size()];
      if (keep(item)) items_[(first_ + kept++) % items_.size()] = item;
    }
    const size_t gone = count_ - kept;
    count_ = kept;
    return gone;
  }

 private:
  std::vector<uint64_t> items_;
  size_t first_ = 0;
  size_t count_ = 0;
};

}  // namespace engram::client
