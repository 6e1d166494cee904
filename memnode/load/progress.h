// The live line on stderr. A thread of its own prints, so that a slow terminal delays no step.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "memnode/load/figures.h"

namespace engram::memnode::load {

std::string ProgressLine(const SecondFigures& second, double total_seconds);

class Progress {
 public:
  explicit Progress(double total_seconds);
  ~Progress();  // clears the line
  // Never blocks: a line that cannot be handed over is left out.
  void Show(const SecondFigures& second);

 private:
  void Print();

  const double total_seconds_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<SecondFigures> next_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace engram::memnode::load
