#include "tests/chaos/lookups.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>

namespace engram::chaos {
namespace {

constexpr char kNoFault[] = "none";

struct Line {
  int faults = 0;
  uint64_t failed = 0, wrong_rows = 0;
  std::vector<Nanos> latencies;

  void Add(const Lookup& lookup) {
    failed += lookup.failed ? 1 : 0;
    wrong_rows += lookup.wrong_rows;
    latencies.push_back(lookup.latency);
  }
  std::string Text(const std::string& fault) {
    std::sort(latencies.begin(), latencies.end());
    const auto ms = [&](double quantile) {
      if (latencies.empty()) return 0.0;
      const auto last = static_cast<double>(latencies.size() - 1);
      const Nanos latency = latencies[static_cast<size_t>(last * quantile + 0.5)];
      return std::chrono::duration<double, std::milli>(latency).count();
    };
    return fmt::format("| {} | {} | {} | {} | {} | {:.1f} ms | {:.1f} ms |\n", fault, faults,
                       latencies.size(), failed, wrong_rows, ms(1), ms(0.999));
  }
};

}  // namespace

Result<std::vector<Lookup>> ReadLookups(const std::string& file) {
  std::vector<Lookup> lookups;
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);  // the names of the columns
  while (std::getline(in, line)) {
    long long due = 0, latency = 0;
    unsigned long long wrong_rows = 0;
    char outcome[32] = {};
    if (std::sscanf(line.c_str(), "%lld,%lld,%31[^,],%llu", &due, &latency, outcome, &wrong_rows) !=
        4) {
      return InvalidArgument(fmt::format("{}: no lookup: {}", file, line));
    }
    lookups.push_back(
        {TimePoint(Nanos(due)), Nanos(latency), std::string_view(outcome) != "OK", wrong_rows});
  }
  return lookups;
}

std::string TableOf(const std::vector<Done>& faults, const std::vector<Lookup>& lookups) {
  std::map<std::string, Line> lines;
  for (const Done& fault : faults) ++lines[fault.fault].faults;
  for (const Lookup& lookup : lookups) {
    // They are few, and one after the other.
    const auto during = std::find_if(faults.begin(), faults.end(), [&](const Done& fault) {
      return lookup.due >= fault.begin && lookup.due < fault.after;
    });
    lines[during == faults.end() ? kNoFault : during->fault].Add(lookup);
  }
  std::string table =
      "| fault | faults | lookups | failed | wrong rows | worst stall | p99.9 |\n"
      "|---|---|---|---|---|---|---|\n";
  table += lines[kNoFault].Text(kNoFault);
  lines.erase(kNoFault);
  for (auto& [fault, line] : lines) table += line.Text(fault);
  return table;
}

}  // namespace engram::chaos
