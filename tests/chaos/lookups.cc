#include "tests/chaos/lookups.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>

namespace engram::chaos {
namespace {

constexpr char kNoFault[] = "none";

double Millis(Nanos time) { return std::chrono::duration<double, std::milli>(time).count(); }

struct Line {
  int faults = 0;
  Nanos slowest_answer{0}, whole_after{0};  // of all
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
      return Millis(latencies[static_cast<size_t>(last * quantile + 0.5)]);
    };
    return fmt::format(
        "| {} | {} | {} | {} | {} | {:.1f} ms | {:.1f} ms | {:.0f} ms | {:.1f} s |\n", fault,
        faults, latencies.size(), failed, wrong_rows, ms(1), ms(0.999), Millis(slowest_answer),
        Millis(whole_after) / 1000);
  }
};

// The one that the lookup was due in, or null. Faults are few, and one after the other.
const Done* FaultOf(const Lookup& lookup, const std::vector<Done>& faults) {
  const auto during = std::find_if(faults.begin(), faults.end(), [&](const Done& fault) {
    return lookup.due >= fault.begin && lookup.due < fault.after;
  });
  return during == faults.end() ? nullptr : &*during;
}

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
  for (const Done& fault : faults) {
    Line& line = lines[fault.fault];
    ++line.faults;
    line.slowest_answer = std::max(line.slowest_answer, fault.slowest_answer);
    line.whole_after = std::max(line.whole_after, fault.whole_after);
  }
  for (const Lookup& lookup : lookups) {
    const Done* fault = FaultOf(lookup, faults);
    lines[fault == nullptr ? kNoFault : fault->fault].Add(lookup);
  }
  std::string table =
      "| fault | faults | lookups | failed | wrong rows | worst stall | p99.9 | engine's slowest "
      "answer | whole again after "
      "|\n"
      "|---|---|---|---|---|---|---|---|---|\n";
  table += lines[kNoFault].Text(kNoFault);
  lines.erase(kNoFault);
  for (auto& [fault, line] : lines) table += line.Text(fault);
  return table;
}

std::string BadOf(const std::vector<Done>& faults, const std::vector<Lookup>& lookups) {
  constexpr int kShown = 20;
  std::string text;
  int shown = 0;
  for (const Lookup& lookup : lookups) {
    if (!lookup.failed && lookup.wrong_rows == 0) continue;
    if (++shown > kShown) break;
    const Done* fault = FaultOf(lookup, faults);
    text += fmt::format("{} after {:.1f} ms",
                        lookup.failed ? "failed" : fmt::format("{} wrong rows", lookup.wrong_rows),
                        Millis(lookup.latency));
    text += fault == nullptr ? ", without a fault\n"
                             : fmt::format(", due {:.1f} ms after the begin of {}\n",
                                           Millis(lookup.due - fault->begin), fault->told);
  }
  return text;
}

}  // namespace engram::chaos
