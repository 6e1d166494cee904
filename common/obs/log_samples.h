// What the log did not write (log.h, GetLogFigures), for a scrape.
#pragma once

#include <string>
#include <vector>

#include "common/obs/metrics.h"

namespace engram::obs {

// The counters NAME_log_lines_dropped_total and NAME_log_lines_suppressed_total. Any thread.
std::vector<Sample> LogSamples(const std::string& name);

}  // namespace engram::obs
