// What attention remembers of one sequence: per layer and position the normed latent and the
// rotated key, fp32, nothing per head. Room for every position the request can reach is taken at
// the start.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/check.h"

namespace engram::compute {

class LatentCache {
 public:
  LatentCache() = default;
  LatentCache(int64_t layers, int64_t positions_max, int64_t width)
      : width_(width),
        positions_max_(positions_max),
        entries_(static_cast<size_t>(layers),
                 std::vector<float>(static_cast<size_t>(positions_max * width))) {}

  int64_t positions_max() const { return positions_max_; }
  // Entries of positions [first, first + count) of a layer: [count, width].
  std::span<float> Entries(int64_t layer, int64_t first, int64_t count) {
    CHECK_LE(first + count, positions_max_);
    return std::span<float>(entries_[static_cast<size_t>(layer)])
        .subspan(static_cast<size_t>(first * width_), static_cast<size_t>(count * width_));
  }

 private:
  int64_t width_ = 0;
  int64_t positions_max_ = 0;
  std::vector<std::vector<float>> entries_;
};

}  // namespace engram::compute
