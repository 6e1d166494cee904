// Clock: the seam for time. Real time in the programs, hand-moved time in tests of deadlines and
// retries.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace engram {

using Nanos = std::chrono::nanoseconds;
// A point on the monotonic clock.
using TimePoint = std::chrono::steady_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
  // The machine's monotonic clock; never destroyed.
  static const Clock& Real();
};

// Stands still until advanced. Thread-safe.
class FakeClock : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Nanos(now_ns_.load())); }
  void Advance(Nanos by) { now_ns_.fetch_add(by.count()); }

 private:
  std::atomic<int64_t> now_ns_{1'000'000'000};
};

}  // namespace engram
