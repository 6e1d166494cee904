// The fake Clock: stands still until advanced. Any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/base/clock.h"

namespace engram {

class FakeClock : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Nanos(now_ns_.load())); }
  void Advance(Nanos by) { now_ns_.fetch_add(by.count()); }

 private:
  std::atomic<int64_t> now_ns_{1'000'000'000};
};

}  // namespace engram
