#include "memnode/load/node_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "common/net/http/client.h"

namespace engram::memnode::load {

std::optional<double> FindSample(std::string_view page, std::string_view name) {
  while (!page.empty()) {
    const size_t line_end = std::min(page.find('\n'), page.size());
    const std::string line(page.substr(0, line_end));
    page.remove_prefix(std::min(line_end + 1, page.size()));
    if (!line.starts_with(name) || line.size() <= name.size()) continue;
    if (line[name.size()] != ' ' && line[name.size()] != '{') continue;
    const size_t value = line.rfind(' ');
    char* end = nullptr;
    const double number = std::strtod(line.c_str() + value + 1, &end);
    if (end != line.c_str() + value + 1) return number;
  }
  return std::nullopt;
}

Result<double> NodeCpuSeconds(const std::vector<std::string>& nodes) {
  constexpr Nanos kTimeout = std::chrono::seconds(5);
  constexpr const char* kMetric = "process_cpu_seconds_total";
  double total = 0;
  for (const std::string& node : nodes) {
    ASSIGN_OR_RETURN(const net::HttpResponse page, net::HttpGet(node, "/metrics", kTimeout));
    if (page.status != 200) {
      return Unavailable(fmt::format("metrics of {}: it answered {}", node, page.status));
    }
    const std::optional<double> seconds = FindSample(page.body, kMetric);
    if (!seconds.has_value()) {
      return NotFound(fmt::format("metrics of {}: no {} on its page", node, kMetric));
    }
    total += *seconds;
  }
  return total;
}

}  // namespace engram::memnode::load
