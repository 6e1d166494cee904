// Turns the events of a run into its figures: which steps count, seconds, layers, errors.
#pragma once

#include <string>

#include "memnode/load/figures.h"

namespace engram::memnode::load {

struct RunParts;

class Recorder {
 public:
  Recorder(const RunSettings& settings, const RunParts& parts);

  // The timed part.
  void Begin(TimePoint from, TimePoint end);
  void EndEarly(TimePoint end) { end_ = end; }

  void Sent(TimePoint intended, bool slipped, Nanos inside_submit);
  void LayerArrived(TimePoint intended, TimePoint arrived, uint32_t layer);
  void Arrived(TimePoint intended, TimePoint arrived);
  void Failed(TimePoint intended, TimePoint at, const Status& why);
  // With settings.keep_steps: a step is over, verifying included.
  void Ended(const StepFigures& step);
  void Unsent(TimePoint intended);  // at the end of the timed part

  bool SecondEnded(TimePoint now) const { return now >= second_end_ && second_end_ <= end_; }
  const SecondFigures& EndSecond(uint64_t outstanding);

  RunFigures Take(bool interrupted);

 private:
  bool Counts(TimePoint intended) const { return intended >= from_ && intended < end_; }

  RunFigures figures_;
  std::vector<Nanos> layer_deadlines_;
  TimePoint from_;
  TimePoint end_;
  TimePoint second_end_ = TimePoint::max();
  SecondFigures second_;
  obs::LatencyHistogram second_latency_;
};

}  // namespace engram::memnode::load
