// Rotary positions, interleaved pairs, with DeepSeek-V3's YaRN.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/base/check.h"
#include "kernels/ops.h"

namespace engram::kernels {
namespace {

// The pair index at which `rotations` full turns fit into the original context.
double CorrectionIndex(double rotations, int dim, double theta, double positions) {
  return dim * std::log(positions / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

}  // namespace

double YarnMscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

std::vector<double> RopeFrequencies(int dim, double theta, const YarnScaling* yarn) {
  std::vector<double> frequencies(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / dim);
  }
  if (yarn == nullptr) return frequencies;
  const double low = std::max(
      std::floor(CorrectionIndex(yarn->beta_fast, dim, theta, yarn->original_positions)), 0.0);
  double high =
      std::min(std::ceil(CorrectionIndex(yarn->beta_slow, dim, theta, yarn->original_positions)),
               static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= interpolated / yarn->factor + (1.0 - interpolated);
  }
  return frequencies;
}

void RopeRotation(int64_t position, std::span<const double> frequencies, float magnitude,
                  std::span<float> rotation) {
  CHECK_EQ(rotation.size(), frequencies.size() * 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    rotation[2 * i] = static_cast<float>(std::cos(angle)) * magnitude;
    rotation[2 * i + 1] = static_cast<float>(std::sin(angle)) * magnitude;
  }
}

void Rope(std::span<float> x, std::span<const float> rotation) {
  CHECK_EQ(x.size(), rotation.size());
  for (size_t i = 0; i + 1 < x.size(); i += 2) {
    const float a = x[i], b = x[i + 1];
    x[i] = a * rotation[i] - b * rotation[i + 1];
    x[i + 1] = a * rotation[i + 1] + b * rotation[i];
  }
}

}  // namespace engram::kernels
