// When steps are due in an open loop: offsets from the start of the run, seeded, never influenced
// by what the service does.
#pragma once

#include <cstdint>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "memnode/load/load_options.h"

namespace engram::memnode::load {

class Schedule {
 public:
  // steps_per_s > 0; `arrivals` is not kClosed.
  Schedule(Arrivals arrivals, double steps_per_s, uint64_t seed);
  Nanos due() const { return Nanos(static_cast<int64_t>(due_ns_)); }
  void Advance();  // to the next step

 private:
  const bool poisson_;
  const double gap_ns_;  // mean
  Rng rng_;
  uint64_t index_ = 0;
  double due_ns_ = 0;  // exact to the nanosecond for a hundred days
};

}  // namespace engram::memnode::load
