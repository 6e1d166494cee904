// A load run's figures for scripts. Keys they rely on: rows_per_s, distinct_rows_per_s,
// bytes_per_s, steps_per_s, step_latency_us {p50,p90,p99,p999,max}, errors, verified_rows,
// wrong_rows, send_slip_ratio, path, refused.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/io/json.h"
#include "memnode/load/environment.h"
#include "memnode/load/figures.h"
#include "memnode/load/knee.h"

namespace engram::memnode::load {

// With a refusal, every latency is null and "refused" says true.
json::object RunJson(const RunFigures& figures, const std::string& refusal);
json::object KneeJson(const Knee& knee, double p99_us);
json::object EnvironmentJson(const Environment& environment);
// One point of a sweep or a knee.
json::object PointJson(const RunFigures& figures);

Status WriteJson(const json::object& report, const std::string& path);

}  // namespace engram::memnode::load
