// A histogram as a value: one thread fills it, and copies of it are shown.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace engram::obs {

struct Buckets {
  Buckets() = default;
  explicit Buckets(std::vector<double> upper)
      : bounds(std::move(upper)), counts(bounds.size() + 1) {}

  void Observe(double value) {
    ++counts[static_cast<size_t>(std::lower_bound(bounds.begin(), bounds.end(), value) -
                                 bounds.begin())];
    sum += value;
  }

  std::vector<double> bounds;    // ascending, each the largest value of its bucket
  std::vector<uint64_t> counts;  // one more: beyond all bounds
  double sum = 0;
};

}  // namespace engram::obs
