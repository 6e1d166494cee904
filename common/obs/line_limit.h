// How many lines one place in the code may log: kLogBurst at once, then kLogLinesPerSecond. Any
// thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "common/base/clock.h"

namespace engram::obs {

class LineLimit {
 public:
  LineLimit(double burst, double per_second) : burst_(burst), per_second_(per_second) {}

  struct Verdict {
    bool write = false;
    uint64_t left_out = 0;  // lines of this place that were refused since the last one written
  };
  // A place is a file and a line of the source, so there are no more of them than the program has.
  // `file` outlives this object.
  Verdict Ask(std::string_view file, uint32_t line, TimePoint now);
  uint64_t suppressed() const;  // refused since this was made

 private:
  struct Place {
    double allowance = 0;  // lines it may write at `asked`
    TimePoint asked;
    uint64_t left_out = 0;
  };

  const double burst_, per_second_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string_view, uint32_t>, Place> places_;  // guarded by mutex_
  uint64_t suppressed_ = 0;                                        // guarded by mutex_
};

}  // namespace engram::obs
