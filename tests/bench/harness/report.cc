#include "tests/bench/harness/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace engram::bench {

std::string TableText(std::span<const std::vector<std::string>> lines) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const std::vector<std::string>& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      text += i == 0 ? fmt::format("  {:<{}}", line[i], widths[i])
                     : fmt::format("  {:>{}}", line[i], widths[i]);
    }
    text += "\n";
  }
  return text;
}

json::object SpreadJson(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

Status WriteJson(const json::value& report, const std::string& path) {
  std::ofstream out(path);
  out << json::serialize(report) << "\n";
  if (out.flush()) return OkStatus();
  return InternalError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

}  // namespace engram::bench
