// What is asked of logits: are they numbers, which is largest, how likely is one.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "common/base/check.h"
#include "kernels/exp.h"
#include "kernels/ops.h"

namespace engram::kernels {
namespace {

constexpr uint32_t kExponent = 0x7f800000;  // all of it: infinity or NaN
constexpr size_t kBlock = 64;
constexpr size_t kLanesF64 = 8;

}  // namespace

bool AllFinite(std::span<const float> values) {
  // All of them, without leaving early: then it is vectorised.
  uint32_t broken = 0;
  for (const float value : values) {
    broken |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent ? 1u : 0u;
  }
  return broken == 0;
}

int64_t ArgMax(std::span<const float> values) {
  std::array<float, kBlock> lanes;
  lanes.fill(-INFINITY);
  size_t i = 0;
  for (; i + kBlock <= values.size(); i += kBlock) {
    for (size_t l = 0; l < kBlock; ++l)
      lanes[l] = values[i + l] > lanes[l] ? values[i + l] : lanes[l];
  }
  for (size_t l = 0; i + l < values.size(); ++l) {
    lanes[l] = values[i + l] > lanes[l] ? values[i + l] : lanes[l];
  }
  const float largest = *std::max_element(lanes.begin(), lanes.end());
  for (i = 0; i + kBlock <= values.size(); i += kBlock) {
    uint32_t found = 0;
    for (size_t l = 0; l < kBlock; ++l) found |= values[i + l] == largest ? 1u : 0u;
    if (found != 0) break;
  }
  const auto first = std::find(values.begin() + static_cast<ptrdiff_t>(i), values.end(), largest);
  return first == values.end() ? 0 : first - values.begin();
}

double SumOfExp(std::span<const float> logits, float largest) {
  std::array<double, kLanesF64> lanes{};
  size_t i = 0;
  for (; i + kLanesF64 <= logits.size(); i += kLanesF64) {
    for (size_t l = 0; l < kLanesF64; ++l) {
      lanes[l] += ExpNonPositive(static_cast<double>(logits[i + l]) - double{largest});
    }
  }
  for (size_t l = 0; i + l < logits.size(); ++l) {
    lanes[l] += ExpNonPositive(static_cast<double>(logits[i + l]) - double{largest});
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

double LogProbability(std::span<const float> logits, int64_t index) {
  CHECK(index >= 0 && index < static_cast<int64_t>(logits.size())) << "index " << index;
  const float largest = logits[static_cast<size_t>(ArgMax(logits))];
  return static_cast<double>(logits[static_cast<size_t>(index)]) - double{largest} -
         std::log(SumOfExp(logits, largest));
}

}  // namespace engram::kernels
