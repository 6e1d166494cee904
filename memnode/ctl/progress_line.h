// One line on a terminal, drawn over again while work goes on: share done, rate, time left. Nothing
// where standard error is no terminal.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/clock.h"

namespace engram::ctl {

class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  ~ProgressLine();  // wipes the line
  // `bytes`: done in this run, for the rate; 0: unknown.
  void Draw(uint64_t done, uint64_t total, uint64_t bytes = 0);

 private:
  const std::string what_;
  const bool shown_;
  const TimePoint begin_ = Clock::Real().Now();
  uint64_t first_done_ = 0;
  bool drawn_ = false;
};

}  // namespace engram::ctl
