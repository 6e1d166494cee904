// The nodes' own account of their CPU time, from their /metrics pages.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace engram::memnode::load {

// The first sample of `name` in a page of Prometheus' text format.
std::optional<double> FindSample(std::string_view page, std::string_view name);

// Sum of process_cpu_seconds_total over the nodes.
Result<double> NodeCpuSeconds(const std::vector<std::string>& nodes);

}  // namespace engram::memnode::load
