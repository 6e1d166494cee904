// What is asked of logits: are they numbers, which is largest, how likely is one.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "kernels/ops.h"

namespace engram::kernels {

bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

int64_t ArgMax(std::span<const float> values) {
  return std::max_element(values.begin(), values.end()) - values.begin();  // the first of equals
}

double LogProbability(std::span<const float> logits, int64_t index) {
  CHECK(index >= 0 && index < static_cast<int64_t>(logits.size())) << "index " << index;
  const double largest = logits[static_cast<size_t>(ArgMax(logits))];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return static_cast<double>(logits[static_cast<size_t>(index)]) - largest - std::log(sum);
}

}  // namespace engram::kernels
