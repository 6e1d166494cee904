// What the load tester saw, put beside the faults.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace engram::chaos {

// One step of engram-load, a line of its --steps file.
struct Lookup {
  TimePoint due;
  Nanos latency{0};  // from when it was due
  bool failed = false;
  uint64_t wrong_rows = 0;
};
Result<std::vector<Lookup>> ReadLookups(const std::string& file);

// A fault that was done, as it is told. Lookups that were due between `begin` and `after` are its
// own.
struct Done {
  std::string fault;
  std::string told;  // with its node and how long it lasted
  TimePoint begin;
  Nanos slowest_answer{0};  // of the engine, while it was there
  Nanos whole_after{0};     // its end: all nodes are used again by the load and the engine
  TimePoint after;  // everything is whole again, and a second has passed since the fault's end
};

// A table in Markdown, a line for each kind of fault: how often, its lookups, how many failed,
// wrong rows, the worst latency, the 99.9th percentile, the engine's slowest answer, and the
// longest until all nodes were used again. The first line is the rest: no fault.
std::string TableOf(const std::vector<Done>& faults, const std::vector<Lookup>& lookups);

// The first lookups that failed or had wrong rows, a line each: when, and of which fault.
std::string BadOf(const std::vector<Done>& faults, const std::vector<Lookup>& lookups);

}  // namespace engram::chaos
