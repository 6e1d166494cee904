// Sums in the one order every reduction of the model uses: sixteen lanes, folded 8, 4, 2, 1.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace engram::kernels {

inline constexpr int64_t kLanes = 16;

// Four loops of constant length: gcc 12 makes of one over the widths a loop that keeps every sum in
// memory.
inline float FoldLanes(std::array<float, kLanes>& lanes) {
  for (size_t i = 0; i < 8; ++i) lanes[i] += lanes[i + 8];
  for (size_t i = 0; i < 4; ++i) lanes[i] += lanes[i + 4];
  for (size_t i = 0; i < 2; ++i) lanes[i] += lanes[i + 2];
  return lanes[0] + lanes[1];
}

// add(i, sum) is what `sum` becomes by value i.
template <typename Add>
float SumLanes(int64_t count, const Add& add) {
  std::array<float, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] = add(i + l, lanes[l]);
  }
  for (int64_t l = 0; i + l < count; ++l) lanes[l] = add(i + l, lanes[l]);
  return FoldLanes(lanes);
}

inline float Dot(const float* a, const float* b, int64_t count) {
  return SumLanes(count, [=](int64_t i, float sum) { return std::fma(a[i], b[i], sum); });
}

}  // namespace engram::kernels
