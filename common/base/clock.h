// Clock: the seam for time. Real time in the programs, hand-moved time (tests/support/fakes) in
// tests of deadlines and retries.
#pragma once

#include <chrono>

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

}  // namespace engram
