// When an answer of a node is late: after twice the time within which 99 of its last hundreds of
// answers came.
//
// Not thread-safe.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "common/base/clock.h"

namespace engram::client {

// Of all requests of callers, how many may be asked for at a second node as well, and how many at
// once after a quiet time.
inline constexpr double kHedgeShare = 0.05;
inline constexpr double kHedgesAtOnce = 16;
// A suspect is asked last until it says something, for so long at most.
inline constexpr Nanos kSuspectFor = std::chrono::seconds(1);
// A node that has said nothing for so long since it was asked counts as stopped: all that it was
// asked for is asked of others as well, whatever that costs.
inline constexpr Nanos kStoppedAfter = std::chrono::milliseconds(20);
// An answer that has not come after so long, or half of the time there was, is asked for elsewhere
// without a budget, too: it may have been lost.
inline constexpr Nanos kLostAfter = std::chrono::milliseconds(250);

class LateAnswers {
 public:
  static constexpr Nanos kAtLeast = std::chrono::microseconds(500);
  static constexpr Nanos kUnknown =
      std::chrono::milliseconds(10);  // before kAnswersPerLook answers

  void Add(Nanos took) {
    ++counts_[BucketOf(took)];
    if (++answers_ % kAnswersPerLook == 0) Look();
  }
  Nanos limit() const { return limit_; }

 private:
  static constexpr uint32_t kAnswersPerLook = 100;
  static constexpr size_t kBuckets = 128;  // four an octave of nanoseconds

  static size_t BucketOf(Nanos took) {
    const auto ns = static_cast<uint64_t>(std::max<int64_t>(took.count(), 4));
    const size_t octave = std::bit_width(ns) - 1u;
    return std::min<size_t>(octave * 4 + (ns >> (octave - 2) & 3), kBuckets - 1);
  }
  // The bucket's upper end.
  static Nanos EndOf(size_t bucket) {
    return Nanos((int64_t{5} + static_cast<int64_t>(bucket % 4)) << (bucket / 4) >> 2);
  }

  // Old answers count half as much at each look.
  void Look() {
    uint64_t all = 0;
    for (const uint32_t count : counts_) all += count;
    uint64_t slower = all / 100;
    size_t bucket = kBuckets;
    while (bucket > 1 && counts_[bucket - 1] <= slower) slower -= counts_[--bucket];
    limit_ = std::max<Nanos>(2 * EndOf(bucket - 1), kAtLeast);
    if (answers_ % (10 * kAnswersPerLook) == 0) {
      for (uint32_t& count : counts_) count /= 2;
    }
  }

  std::array<uint32_t, kBuckets> counts_ = {};
  uint32_t answers_ = 0;
  Nanos limit_ = kUnknown;
};

}  // namespace engram::client
