// The knee: the highest rate at which the p99 of step latency stays within a bound, found by
// bisection (geometric, as latencies bend over orders of magnitude).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/load/figures.h"

namespace engram::memnode::load {

struct Probe {
  double steps_per_s = 0;  // asked for
  bool held = false;
  std::string why_not;  // p99, errors, refused, ...
  RunFigures figures;
};

struct Knee {
  std::vector<Probe> probes;    // in the order they were run
  int best = -1;                // index of the fastest that held; -1: not even the lowest
  bool at_upper_bound = false;  // the highest rate tried held: the knee may lie above
};

// Whether a run at `steps_per_s` holds: no errors, no refusal, nothing left unsent, p99 within the
// bound. Fills in `held` and `why_not`.
Probe JudgeProbe(double steps_per_s, double p99_us, RunFigures figures);

// At most options.probes_max runs. low < high, both > 0. An error of `run` ends the search.
Result<Knee> FindKnee(const KneeOptions& options,
                      const std::function<Result<RunFigures>(double steps_per_s)>& run,
                      const std::function<void(const Probe&)>& on_probe);

}  // namespace engram::memnode::load
