#include "memnode/load/recorder.h"

#include <algorithm>
#include <utility>

#include "memnode/load/runner.h"

namespace engram::memnode::load {
namespace {

uint64_t NanosBetween(TimePoint from, TimePoint to) {
  return static_cast<uint64_t>(std::max<int64_t>(0, (to - from).count()));
}

}  // namespace

Recorder::Recorder(const RunSettings& settings, const RunParts& parts) {
  figures_.settings = settings;
  figures_.shape = parts.pool->shape();
  figures_.rows_per_step = parts.pool->rows_per_step();
  figures_.row_bytes = parts.layout->row_format.row_bytes();
  figures_.pool_steps = parts.pool->step_count();
  figures_.pool_bytes = parts.pool->size_bytes();
  for (const table::LayerLayout& layer : parts.layout->layers) {
    figures_.layers.emplace_back().layer_id = layer.layer_id;
  }
  for (const double us : settings.layer_deadlines_us) {
    layer_deadlines_.push_back(Nanos(static_cast<int64_t>(us * 1e3)));
  }
}

void Recorder::Begin(TimePoint from, TimePoint end) {
  from_ = from;
  end_ = end;
  second_end_ = from + std::chrono::seconds(1);
}

void Recorder::Sent(TimePoint intended, bool slipped, Nanos inside_submit) {
  if (!Counts(intended)) return;
  ++figures_.steps_due;
  ++figures_.steps_sent;
  if (slipped) ++figures_.steps_slipped;
  figures_.submit_seconds += std::chrono::duration<double>(inside_submit).count();
}

void Recorder::LayerArrived(TimePoint intended, TimePoint arrived, uint32_t layer) {
  if (!Counts(intended)) return;
  LayerFigures& figures = figures_.layers[layer];
  figures.latency.Record(NanosBetween(intended, arrived));
  if (layer >= layer_deadlines_.size()) return;
  const TimePoint deadline = intended + layer_deadlines_[layer];
  if (arrived <= deadline) {
    figures.slack.Record(NanosBetween(arrived, deadline));
  } else {
    ++figures.missed;
    figures.lateness.Record(NanosBetween(deadline, arrived));
  }
}

void Recorder::Arrived(TimePoint intended, TimePoint arrived) {
  const uint64_t latency = NanosBetween(intended, arrived);
  if (Counts(intended)) figures_.step_latency.Record(latency);
  if (arrived < from_ || arrived >= end_) return;
  ++figures_.steps;
  figures_.rows += figures_.rows_per_step;
  ++second_.steps;
  second_.rows += figures_.rows_per_step;
  second_latency_.Record(latency);
}

void Recorder::Failed(TimePoint intended, TimePoint at, const Status& why) {
  if (at >= from_ && at < end_) ++second_.errors;
  if (figures_.first_error.empty()) figures_.first_error = why.ToString();
  if (intended < from_) {
    ++figures_.warm_up_errors;
    return;
  }
  ++figures_.errors;
  ++figures_.errors_by_code[why.code()];
}

void Recorder::Ended(const StepFigures& step) {
  if (figures_.settings.keep_steps && Counts(step.due)) figures_.step_list.push_back(step);
}

void Recorder::Unsent(TimePoint intended) {
  if (!Counts(intended)) return;
  ++figures_.steps_due;
  ++figures_.steps_unsent;
  figures_.step_latency.Record(NanosBetween(intended, end_));
}

const SecondFigures& Recorder::EndSecond(uint64_t outstanding) {
  second_.outstanding = outstanding;
  second_.p50_us = static_cast<double>(second_latency_.QuantileNs(0.5)) / 1e3;
  second_.p99_us = static_cast<double>(second_latency_.QuantileNs(0.99)) / 1e3;
  figures_.series.push_back(second_);
  second_ = {.second = second_.second + 1};
  second_latency_ = {};
  second_end_ += std::chrono::seconds(1);
  return figures_.series.back();
}

RunFigures Recorder::Take(bool interrupted) {
  if (second_end_ <= end_) EndSecond(0);  // the last one, when the run ended right with it
  figures_.interrupted = interrupted;
  figures_.seconds = std::max(0.0, std::chrono::duration<double>(end_ - from_).count());
  return std::move(figures_);
}

}  // namespace engram::memnode::load
