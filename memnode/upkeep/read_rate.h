// A limit on bytes read a second, shared by the threads of one reader. Says when to go on; the
// caller waits, because it may have to stop meanwhile.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "common/base/clock.h"

namespace engram::memnode {

class ReadRate {
 public:
  // mib_per_s 0: no limit.
  ReadRate(double mib_per_s, const Clock& clock)
      : clock_(clock), ns_per_byte_(mib_per_s > 0 ? 1e9 / (mib_per_s * (1 << 20)) : 0) {}

  // Accounts for bytes just read; the caller goes on from the returned time on. Time unused counts
  // for at most kBurst.
  TimePoint Take(uint64_t bytes) {
    constexpr Nanos kBurst = std::chrono::milliseconds(50);
    const std::lock_guard lock(mutex_);
    const TimePoint now = clock_.Now();
    if (ns_per_byte_ == 0) return now;
    const Nanos cost(static_cast<int64_t>(static_cast<double>(bytes) * ns_per_byte_));
    next_ = std::max(next_, now - kBurst) + cost;
    return next_;
  }

 private:
  const Clock& clock_;
  const double ns_per_byte_;
  std::mutex mutex_;
  TimePoint next_;
};

}  // namespace engram::memnode
