// Zipf-distributed ranks over populations of any size, without tables: rejection-inversion
// (Hoermann and Derflinger 1996). The acceptance rate is above 0.7 for every theta.
#pragma once

#include <cstdint>

#include "common/base/rng.h"

namespace engram::memnode::load {

// P(rank = k) is proportional to 1 / k^theta, k = 1..population.
class ZipfRanks {
 public:
  // theta > 0, population >= 1.
  ZipfRanks(double theta, uint64_t population);
  uint64_t Next(Rng& rng) const;

 private:
  double Integral(double x) const;         // of 1/x^theta
  double IntegralInverse(double y) const;  // of the above
  double Density(double x) const;

  double theta_;
  uint64_t population_;
  double integral_first_;
  double integral_last_;
  double shortcut_;
};

}  // namespace engram::memnode::load
