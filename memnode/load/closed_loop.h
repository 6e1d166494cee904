// A closed-loop saturation search: `depth` steps are kept outstanding, each the rows of `tokens`
// tokens over all Engram layers; every row that comes back is compared with the reference. Finds
// the most a service can do; says nothing about latency at a given rate, because a slow answer
// delays the next question.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"
#include "common/client/row_source.h"
#include "common/obs/latency_histogram.h"
#include "common/table/layout.h"

namespace engram::memnode::load {

struct ClosedLoopOptions {
  int64_t tokens = 64;           // a step's tokens: rows = tokens * H * layers
  int64_t depth = 2;             // steps outstanding
  double warm_up_seconds = 0.5;  // verified, not timed
  double seconds = 5;
  int64_t deadline_ms = 2000;  // per step
  uint64_t seed = 1;
  int64_t verify_every = 1;  // compare the rows of every n-th step; 0 = none
};

struct LoadResult {
  double seconds = 0;
  uint64_t steps = 0;
  uint64_t rows = 0;
  uint64_t distinct_rows = 0;
  uint64_t bytes = 0;
  uint64_t errors = 0;         // steps that ended with an error
  uint64_t verified_rows = 0;  // warm-up included
  uint64_t wrong_rows = 0;
  std::string first_error;
  obs::LatencyHistogram step_latency;
};

// `reference` holds the same tables in this process; may be null when verify_every is 0. Stops at
// the first error of `service` after counting it: a load figure with failures in it is not one.
Result<LoadResult> RunClosedLoop(const ClosedLoopOptions& options, const table::TableLayout& layout,
                                 client::RowSource& service, client::RowSource* reference);

}  // namespace engram::memnode::load
