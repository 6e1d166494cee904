// A load run's figures, for people and for scripts.
#pragma once

#include <string>

#include "common/base/status.h"
#include "memnode/load/closed_loop.h"

namespace engram::memnode::load {

// A table of a few lines.
std::string TextReport(const LoadResult& result);

// Keys that scripts rely on: rows_per_s, distinct_rows_per_s, bytes_per_s, steps_per_s,
// step_latency_us {p50,p90,p99,p999,max}, errors, verified_rows, wrong_rows, path.
Status WriteJsonReport(const LoadResult& result, const std::string& path);

}  // namespace engram::memnode::load
