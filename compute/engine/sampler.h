// Logits to token: the largest (temperature 0, ties to the lower id), or a seeded draw.
#pragma once

#include <cstdint>
#include <span>

#include "common/base/rng.h"

namespace engram::compute {

class Sampler {
 public:
  Sampler(double temperature, uint64_t seed) : temperature_(temperature), rng_(seed) {}
  int32_t Sample(std::span<const float> logits);

 private:
  double temperature_;
  Rng rng_;
};

}  // namespace engram::compute
