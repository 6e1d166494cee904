#include "compute/engine/sampler.h"

#include <cmath>
#include <vector>

#include "kernels/ops.h"

namespace engram::compute {

int32_t Sampler::Sample(std::span<const float> logits) {
  const auto best = static_cast<int32_t>(kernels::ArgMax(logits));
  if (temperature_ == 0) return best;
  // Inverse transform over ids in ascending order, in float64: one draw a token.
  const double largest = logits[static_cast<size_t>(best)];
  std::vector<double> cumulative(logits.size());
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    sum += std::exp((static_cast<double>(logits[i]) - largest) / temperature_);
    cumulative[i] = sum;
  }
  const double target = rng_.NextDouble() * sum;  // < sum
  for (size_t i = 0; i < cumulative.size(); ++i) {
    if (cumulative[i] > target) return static_cast<int32_t>(i);
  }
  return best;
}

}  // namespace engram::compute
