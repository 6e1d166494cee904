#include "memnode/load/zipf.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace engram::memnode::load {
namespace {

// log1p(x)/x and expm1(x)/x, exact in the limit: theta = 1 needs no case of its own.
double LogRatio(double x) { return std::abs(x) > 1e-8 ? std::log1p(x) / x : 1 - x / 2; }
double ExpRatio(double x) { return std::abs(x) > 1e-8 ? std::expm1(x) / x : 1 + x / 2; }

}  // namespace

ZipfRanks::ZipfRanks(double theta, uint64_t population) : theta_(theta), population_(population) {
  CHECK(theta > 0);
  CHECK(population >= 1);
  integral_first_ = Integral(1.5) - 1;
  integral_last_ = Integral(static_cast<double>(population) + 0.5);
  shortcut_ = 2 - IntegralInverse(Integral(2.5) - Density(2));
}

double ZipfRanks::Integral(double x) const {
  const double log_x = std::log(x);
  return ExpRatio((1 - theta_) * log_x) * log_x;
}

double ZipfRanks::IntegralInverse(double y) const {
  const double t = std::max(-1.0, y * (1 - theta_));
  return std::exp(LogRatio(t) * y);
}

double ZipfRanks::Density(double x) const { return std::exp(-theta_ * std::log(x)); }

uint64_t ZipfRanks::Next(Rng& rng) const {
  while (true) {
    const double u = integral_last_ + rng.NextDouble() * (integral_first_ - integral_last_);
    const double x = IntegralInverse(u);
    const double rounded = std::clamp(std::floor(x + 0.5), 1.0, static_cast<double>(population_));
    if (rounded - x <= shortcut_ || u >= Integral(rounded + 0.5) - Density(rounded)) {
      return static_cast<uint64_t>(rounded);
    }
  }
}

}  // namespace engram::memnode::load
