// Counts how lookups ended in the last seconds, for readiness, and the rows of all lookups so far.
//
// Any thread, without locks; two threads that begin the same second may lose a count.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "common/base/clock.h"

namespace engram::memnode {

class LookupOutcomes {
 public:
  static constexpr int64_t kWindowSeconds = 10;

  struct Counts {
    uint64_t served = 0;
    uint64_t unreadable = 0;  // failed: their rows could not be read here
  };

  void Served(TimePoint now, uint64_t rows) {
    Of(now).served.fetch_add(1, std::memory_order_relaxed);
    lookups_.fetch_add(1, std::memory_order_relaxed);
    rows_served_.fetch_add(rows, std::memory_order_relaxed);
  }
  void Unreadable(TimePoint now, uint64_t rows) {
    Of(now).unreadable.fetch_add(1, std::memory_order_relaxed);
    lookups_.fetch_add(1, std::memory_order_relaxed);
    rows_unreadable_.fetch_add(rows, std::memory_order_relaxed);
  }

  Counts Recent(TimePoint now) const {
    Counts counts;
    for (const Second& second : seconds_) {
      const int64_t age = SecondOf(now) - second.number.load(std::memory_order_relaxed);
      if (age < 0 || age >= kWindowSeconds) continue;
      counts.served += second.served.load(std::memory_order_relaxed);
      counts.unreadable += second.unreadable.load(std::memory_order_relaxed);
    }
    return counts;
  }

  // Of lookups that were served, since the start.
  uint64_t rows_served() const { return rows_served_.load(std::memory_order_relaxed); }
  // Of all lookups so far; of one token's, 48, before the first.
  double MeanRows() const {
    const uint64_t lookups = lookups_.load(std::memory_order_relaxed);
    if (lookups == 0) return 48;
    return static_cast<double>(rows_served() + rows_unreadable_.load(std::memory_order_relaxed)) /
           static_cast<double>(lookups);
  }

 private:
  struct Second {
    std::atomic<int64_t> number = -kWindowSeconds;
    std::atomic<uint64_t> served = 0;
    std::atomic<uint64_t> unreadable = 0;
  };

  static int64_t SecondOf(TimePoint now) {
    return std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
  }
  Second& Of(TimePoint now) {
    const int64_t number = SecondOf(now);
    Second& second = seconds_[static_cast<size_t>(number % kWindowSeconds)];
    if (second.number.exchange(number, std::memory_order_relaxed) != number) {
      second.served.store(0, std::memory_order_relaxed);
      second.unreadable.store(0, std::memory_order_relaxed);
    }
    return second;
  }

  std::array<Second, kWindowSeconds> seconds_;
  std::atomic<uint64_t> lookups_ = 0;
  std::atomic<uint64_t> rows_served_ = 0;
  std::atomic<uint64_t> rows_unreadable_ = 0;
};

}  // namespace engram::memnode
