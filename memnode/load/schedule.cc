#include "memnode/load/schedule.h"

#include <cmath>

#include "common/base/check.h"

namespace engram::memnode::load {

Schedule::Schedule(Arrivals arrivals, double steps_per_s, uint64_t seed)
    : poisson_(arrivals == Arrivals::kPoisson), gap_ns_(1e9 / steps_per_s), rng_(seed) {
  CHECK(arrivals != Arrivals::kClosed);
  CHECK(steps_per_s > 0);
  if (poisson_) Advance();
}

void Schedule::Advance() {
  ++index_;
  // A constant rate is multiplied out, so that rounding does not add up.
  due_ns_ = poisson_ ? due_ns_ - std::log1p(-rng_.NextDouble()) * gap_ns_
                     : static_cast<double>(index_) * gap_ns_;
}

}  // namespace engram::memnode::load
