// The two charts of a load test: latency against rate, rows/s against batch.
#pragma once

#include <string>
#include <vector>

#include "memnode/load/environment.h"
#include "memnode/load/figures.h"
#include "memnode/load/plot.h"

namespace engram::memnode::load {

// Runs in any order; refused ones are left out. A panel without runs is left out.
std::vector<PlotPanel> LoadPanels(std::vector<const RunFigures*> rates,
                                  std::vector<const RunFigures*> batches);
std::string PlotCaption(const RunFigures& figures, const Environment& environment);
// One point of a sweep for the terminal.
std::string SweepLine(const RunFigures& figures);

}  // namespace engram::memnode::load
