// How much memory the rows of all a node's tables may take together (arena.budget_mib).
//
// Any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

namespace engram::memnode {

class MemoryBudget {
 public:
  static constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

  explicit MemoryBudget(uint64_t bytes) : left_(bytes) {}

  uint64_t left() const {
    const std::lock_guard lock(mutex_);
    return left_;
  }

  // What one table set has of it; given back when destroyed.
  class Share {
   public:
    Share() = default;
    explicit Share(std::shared_ptr<MemoryBudget> budget) : budget_(std::move(budget)) {}
    Share(Share&& other) noexcept { *this = std::move(other); }
    Share& operator=(Share&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Share() {
      if (budget_ != nullptr) budget_->GiveBack(bytes_);
    }

    uint64_t left() const { return budget_->left(); }
    // Takes as many whole units as are left, `units` at most; returns how many.
    uint64_t Take(uint64_t units, uint64_t unit_bytes) {
      const uint64_t taken = budget_->Take(units, unit_bytes);
      bytes_ += taken * unit_bytes;
      return taken;
    }
    void GiveBack(uint64_t bytes) {
      bytes_ -= bytes;
      budget_->GiveBack(bytes);
    }

   private:
    std::shared_ptr<MemoryBudget> budget_;
    uint64_t bytes_ = 0;
  };

 private:
  uint64_t Take(uint64_t units, uint64_t unit_bytes) {
    const std::lock_guard lock(mutex_);
    if (left_ == kUnlimited) return units;
    const uint64_t taken = std::min(units, left_ / unit_bytes);
    left_ -= taken * unit_bytes;
    return taken;
  }
  void GiveBack(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (left_ != kUnlimited) left_ += bytes;
  }

  mutable std::mutex mutex_;
  uint64_t left_;
};

}  // namespace engram::memnode
