// Seeded random inputs for kernel tests.
#pragma once

#include <cmath>
#include <vector>

#include "common/base/rng.h"
#include "common/base/types.h"

namespace engram::kernels {

inline std::vector<float> RandomFloats(Rng& rng, int64_t count, double scale = 1.0) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal() * scale);
  return values;
}

inline std::vector<Bf16> RandomBf16(Rng& rng, int64_t count, double scale = 1.0) {
  std::vector<Bf16> values(static_cast<size_t>(count));
  for (Bf16& value : values) value = ToBf16(static_cast<float>(rng.NextNormal() * scale));
  return values;
}

inline int64_t RandomBetween(Rng& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng.NextBelow(static_cast<uint64_t>(high - low + 1)));
}

inline constexpr double kEps = 0x1.0p-24;  // half a unit in the last place of 1.0f

}  // namespace engram::kernels
