// Each step of a run as a line of CSV, for scripts that put latencies beside events of their own.
#pragma once

#include <string>

#include "memnode/load/figures.h"

namespace engram::memnode::load {

// A header line, then due_ns,latency_ns,outcome,wrong_rows. due_ns is of the machine's monotonic
// clock, the same in all its processes; outcome is OK or the error's code.
Status WriteSteps(const RunFigures& figures, const std::string& path);

}  // namespace engram::memnode::load
