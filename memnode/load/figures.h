// What one run measured. "Counted" steps are those whose intended time lies in the timed part;
// throughput is of what arrived within it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/client/row_source.h"
#include "common/obs/latency_histogram.h"
#include "memnode/load/load_options.h"
#include "memnode/load/verifier.h"

namespace engram::memnode::load {

struct SecondFigures {
  uint64_t second = 0;  // of the timed part, from 0
  uint64_t steps = 0;   // that arrived in it
  uint64_t rows = 0;
  uint64_t errors = 0;
  double p50_us = 0;  // of the steps that arrived in it
  double p99_us = 0;
  uint64_t outstanding = 0;  // at its end
};

// One counted step, as it ended.
struct StepFigures {
  TimePoint due;
  Nanos latency{0};
  Code code = Code::kOk;
  uint64_t wrong_rows = 0;  // of a step that was verified
};

struct LayerFigures {
  int layer_id = 0;
  obs::LatencyHistogram latency;  // from the intended time to its last row
  // With a deadline:
  uint64_t missed = 0;
  obs::LatencyHistogram slack;     // deadline - arrival of those in time
  obs::LatencyHistogram lateness;  // arrival - deadline of the others
};

struct RunFigures {
  RunSettings settings;
  StepShape shape;
  uint64_t rows_per_step = 0;
  uint64_t row_bytes = 0;
  uint64_t pool_steps = 0;
  uint64_t pool_bytes = 0;

  double seconds = 0;  // timed part, as long as it ran
  bool interrupted = false;
  uint64_t steps = 0;  // arrived within the timed part
  uint64_t rows = 0;
  obs::LatencyHistogram step_latency;  // of the counted steps, from the intended time
  std::vector<LayerFigures> layers;
  std::vector<SecondFigures> series;
  std::vector<StepFigures> step_list;  // in the order they ended; empty unless settings.keep_steps

  uint64_t steps_due = 0;      // counted steps, sent or not
  uint64_t steps_sent = 0;     // counted steps that were submitted
  uint64_t steps_slipped = 0;  // of those, sent too late through the tester's own fault
  // Due but not sent when the timed part ended, as the outstanding bound held them back. They are
  // in step_latency with what they had waited by then: a lower bound.
  uint64_t steps_unsent = 0;
  double submit_seconds = 0;  // inside Submit, of the steps sent

  uint64_t errors = 0;  // counted steps that ended with one
  std::map<Code, uint64_t> errors_by_code;
  std::string first_error;
  uint64_t warm_up_errors = 0;
  VerifyFigures verify;  // warm-up included

  // Of the whole run, warm-up included.
  client::SourceStats service;
  double client_cpu_seconds = 0;  // of this process, less what verifying took
  double node_cpu_seconds = -1;   // of all nodes asked; -1: not known

  double steps_per_s() const { return seconds > 0 ? static_cast<double>(steps) / seconds : 0; }
  double rows_per_s() const { return seconds > 0 ? static_cast<double>(rows) / seconds : 0; }
  double distinct_ratio() const;      // distinct rows / rows asked
  double wire_bytes_per_row() const;  // as they travelled, per row asked
  double send_slip_ratio() const;
  double latency_us(double quantile) const {
    return static_cast<double>(step_latency.QuantileNs(quantile)) / 1e3;
  }
  std::string path() const;  // "gather", ..., "mixed", or "in_process"
  uint64_t rows_by_path(client::Path path) const;
  bool open_loop() const { return settings.arrivals != Arrivals::kClosed; }
};

inline constexpr double kSlipRatioMax = 0.01;

// Why the latencies may not be reported, or "".
std::string RefusalOf(const RunFigures& figures);

// How many steps failed, warm-up included, and why the first did; or "".
std::string FailureOf(const RunFigures& figures);

// later - earlier, node by node.
client::SourceStats Difference(const client::SourceStats& later,
                               const client::SourceStats& earlier);

std::string_view ArrivalsName(Arrivals arrivals);

}  // namespace engram::memnode::load
