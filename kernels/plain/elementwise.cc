// Norm, activation and softmax, one row at a time.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "kernels/exp.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"

namespace engram::kernels {

void RmsNorm(std::span<const float> x, std::span<const float> weight, float norm_eps,
             std::span<float> y) {
  const int64_t width = std::ssize(weight);
  CHECK(x.size() == y.size() && x.size() % width == 0) << x.size() << " values, width " << width;
  for (int64_t row = 0; row < std::ssize(x); row += width) {
    const float* const from = x.data() + row;
    const float mean = Dot(from, from, width) / static_cast<float>(width);
    const float scale = 1.0f / std::sqrt(mean + norm_eps);
    for (int64_t i = 0; i < width; ++i) y[row + i] = from[i] * scale * weight[i];
  }
}

void SwiGlu(std::span<float> gate, std::span<const float> up) {
  CHECK_EQ(gate.size(), up.size());
  for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] * Sigmoid(gate[i]) * up[i];
}

void Add(std::span<float> x, std::span<const float> y) {
  CHECK_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

void AddScaled(std::span<float> x, float scale, std::span<const float> y) {
  CHECK_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::fma(scale, y[i], x[i]);
}

void AddBias(std::span<float> x, std::span<const float> bias) {
  for (size_t row = 0; row + bias.size() <= x.size(); row += bias.size()) {
    Add(x.subspan(row, bias.size()), bias);
  }
}

float ExpScaled(std::span<float> values, float largest, float scale) {
  for (float& value : values) value = ExpNonPositive((value - largest) * scale);
  return SumLanes(std::ssize(values), [&](int64_t i, float sum) { return sum + values[i]; });
}

void Softmax(std::span<float> scores, float scale) {
  const float sum = ExpScaled(scores, *std::max_element(scores.begin(), scores.end()), scale);
  for (float& score : scores) score /= sum;
}

}  // namespace engram::kernels
