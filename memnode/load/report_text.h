// A load run's figures for people.
#pragma once

#include <string>

#include "memnode/load/environment.h"
#include "memnode/load/figures.h"
#include "memnode/load/knee.h"

namespace engram::memnode::load {

// The final table. `refusal`: why latencies are left out, or "".
std::string TextReport(const RunFigures& figures, const std::string& refusal);
std::string ProbeLine(const Probe& probe);
std::string KneeText(const Knee& knee, double p99_us);
std::string EnvironmentText(const Environment& environment);

}  // namespace engram::memnode::load
