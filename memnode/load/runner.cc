#include "memnode/load/runner.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "memnode/load/recorder.h"
#include "memnode/load/schedule.h"

namespace engram::memnode::load {
namespace {

constexpr size_t kVerifyChunkRows = 64;                         // about 2 us between two polls
constexpr Nanos kSleepMargin = std::chrono::microseconds(300);  // the system wakes late
constexpr Nanos kSleepMax = std::chrono::milliseconds(5);
// Past its deadline a ticket is waited for even if it does not say that it is ready.
constexpr Nanos kDeadlineGrace = std::chrono::seconds(1);

Nanos Seconds(double seconds) {
  return std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
}

// One step under way or waiting to be verified, with buffers of its own.
struct Slot {
  std::vector<std::vector<std::byte>> out;   // per layer
  std::vector<client::LayerLookup> lookups;  // rows in the pool, out above
  client::Ticket ticket;
  std::vector<bool> pending;  // per layer
  size_t pending_count = 0;
  Status failure;
  uint64_t step = 0;
  TimePoint intended;
  TimePoint deadline;
  Nanos latency{0};
  size_t verified = 0;  // rows of this step
  uint64_t wrong_rows = 0;
};

class Runner {
 public:
  Runner(const RunSettings& settings, const RunParts& parts, const Host& host)
      : settings_(settings), parts_(parts), host_(host), recorder_(settings, parts) {
    if (settings.arrivals != Arrivals::kClosed) {
      schedule_.emplace(settings.arrivals, settings.steps_per_s, settings.seed);
    }
    if (parts.reference != nullptr) verifier_.emplace(*parts.layout, *parts.reference);
  }

  Status MakeSlots();
  RunFigures Run();
  // After Run: whether the rows were compared with the right ones.
  const Status& reference_unchanged() const { return reference_unchanged_; }

 private:
  TimePoint Now() const { return host_.clock->Now(); }
  bool Sending() const;
  bool TrySend();
  void Send(size_t slot_index, TimePoint intended);
  bool Poll();
  bool Advance(Slot& slot);
  void Finish(size_t slot_index);
  void Fail(TimePoint intended, TimePoint at, const Status& why);
  bool VerifySome();
  void Idle();
  void SourceCallEnded(TimePoint begin);
  void CountUnsent();

  const RunSettings settings_;
  const RunParts parts_;
  const Host& host_;
  Recorder recorder_;
  std::optional<Schedule> schedule_;
  std::optional<Verifier> verifier_;

  std::vector<Slot> slots_;
  std::vector<size_t> free_;       // indices into slots_
  std::vector<size_t> in_flight_;  // in the order they were sent
  std::deque<size_t> unverified_;
  uint64_t next_step_ = 0;
  double verify_due_ = 0;  // counts up by the rate; a step is verified at every whole number

  TimePoint now_;
  TimePoint start_;
  TimePoint end_;
  bool stopped_ = false;
  TimePoint path_free_;                     // since when only the tester can be in the way
  std::optional<TimePoint> blocked_since_;  // a step is due, but all buffers wait to be verified
  uint64_t preemptions_seen_ = 0;
  Status reference_unchanged_;
};

Status Runner::MakeSlots() {
  const size_t row_bytes = parts_.layout->row_format.row_bytes();
  const size_t step_bytes = parts_.pool->rows_per_step() * row_bytes;
  const auto outstanding = static_cast<size_t>(settings_.outstanding);
  const size_t fitting = (static_cast<size_t>(settings_.buffer_mib) << 20) / step_bytes;
  if (fitting < outstanding + 1) {
    return InvalidArgument(fmt::format(
        "{} steps of {} bytes outstanding need more than {} MiB: lower --outstanding or --depth, "
        "or raise --buffer-mib",
        outstanding, step_bytes, settings_.buffer_mib));
  }
  slots_.resize(std::min(fitting, 2 * outstanding + 2));
  for (size_t s = slots_.size(); s-- > 0;) {
    Slot& slot = slots_[s];
    slot.pending.resize(parts_.pool->layer_count());
    for (uint32_t i = 0; i < parts_.pool->layer_count(); ++i) {
      slot.out.emplace_back(parts_.pool->rows_per_layer() * row_bytes);
      slot.lookups.push_back({i, {}, slot.out.back()});
    }
    free_.push_back(s);
  }
  in_flight_.reserve(slots_.size());
  return OkStatus();
}

RunFigures Runner::Run() {
  const client::SourceStats stats_before = parts_.service->stats();
  const double cpu_before = host_.cpu_seconds();
  preemptions_seen_ = host_.preemptions();
  now_ = start_ = path_free_ = Now();
  const TimePoint measure_from = start_ + Seconds(settings_.warm_up_seconds);
  end_ = measure_from + Seconds(settings_.seconds);
  recorder_.Begin(measure_from, end_);

  while (Sending() || !in_flight_.empty()) {
    if (recorder_.SecondEnded(now_)) {
      const SecondFigures& second = recorder_.EndSecond(in_flight_.size());
      if (host_.on_second) host_.on_second(second);
      now_ = Now();
    }
    if (TrySend()) continue;
    if (Poll()) continue;
    if (!VerifySome()) Idle();
  }
  CountUnsent();
  const double cpu_after = host_.cpu_seconds();
  const double verifying = verifier_.has_value() ? verifier_->figures().seconds : 0;
  while (VerifySome()) {
  }
  if (parts_.reference != nullptr) reference_unchanged_ = parts_.reference->CheckUnchanged();
  RunFigures figures = recorder_.Take(stopped_);
  if (verifier_.has_value()) figures.verify = verifier_->figures();
  figures.client_cpu_seconds = std::max(0.0, cpu_after - cpu_before - verifying);
  figures.service = Difference(parts_.service->stats(), stats_before);
  return figures;
}

// Ends at its time, when told to, or at a closed loop's first error.
bool Runner::Sending() const { return !stopped_ && now_ < end_; }

bool Runner::TrySend() {
  if (!stopped_ && host_.stop != nullptr && host_.stop->load(std::memory_order_relaxed)) {
    stopped_ = true;
    end_ = std::min(end_, now_);
    recorder_.EndEarly(end_);
  }
  if (!Sending()) return false;
  TimePoint intended = now_;
  if (schedule_.has_value()) {
    intended = start_ + schedule_->due();
    if (intended > now_ || intended >= end_) return false;
  }
  if (in_flight_.size() >= static_cast<size_t>(settings_.outstanding)) return false;
  if (free_.empty()) {
    if (!blocked_since_.has_value()) blocked_since_ = now_;
    return false;
  }
  const size_t slot_index = free_.back();
  free_.pop_back();
  Send(slot_index, intended);
  if (schedule_.has_value()) schedule_->Advance();
  return true;
}

void Runner::Send(size_t slot_index, TimePoint intended) {
  Slot& slot = slots_[slot_index];
  slot.step = next_step_++;
  slot.intended = intended;
  slot.failure = OkStatus();
  slot.verified = 0;
  slot.wrong_rows = 0;
  slot.pending.assign(slot.pending.size(), true);
  slot.pending_count = slot.pending.size();
  for (size_t i = 0; i < slot.lookups.size(); ++i) {
    slot.lookups[i].rows = parts_.pool->Rows(slot.step, i);
  }
  const TimePoint sent = Now();
  slot.deadline = sent + std::chrono::milliseconds(settings_.deadline_ms);
  auto ticket = parts_.service->Submit(slot.lookups, {slot.deadline, settings_.priority});
  now_ = Now();
  const Nanos own_delay = schedule_.has_value()
                              ? sent - std::max(intended, blocked_since_.value_or(path_free_))
                              : Nanos::zero();
  blocked_since_.reset();
  recorder_.Sent(intended, own_delay > settings_.slip_tolerance, now_ - sent);
  SourceCallEnded(sent);
  if (!ticket.ok()) {
    Fail(intended, now_, ticket.status());
    free_.push_back(slot_index);
    return;
  }
  slot.ticket = std::move(*ticket);
  in_flight_.push_back(slot_index);
}

// Time inside the source is the path's, not the tester's: part of the latency, no slip. Unless the
// system took the core away meanwhile.
void Runner::SourceCallEnded(TimePoint begin) {
  if (now_ - begin > settings_.slip_tolerance) {
    const uint64_t preemptions = host_.preemptions();
    if (std::exchange(preemptions_seen_, preemptions) != preemptions) return;
  }
  path_free_ = now_;
}

bool Runner::Poll() {
  const TimePoint begin = now_;
  bool progress = false;
  for (size_t i = 0; i < in_flight_.size();) {
    const size_t slot_index = in_flight_[i];
    if (!Advance(slots_[slot_index])) {
      ++i;
      continue;
    }
    progress = true;
    in_flight_.erase(in_flight_.begin() + static_cast<std::ptrdiff_t>(i));
    Finish(slot_index);
  }
  now_ = Now();
  SourceCallEnded(begin);
  return progress;
}

// Takes the layers that have arrived; true when the step is over.
bool Runner::Advance(Slot& slot) {
  for (uint32_t layer = 0; layer < slot.pending.size(); ++layer) {
    if (!slot.pending[layer]) continue;
    if (!slot.ticket.Ready(layer) && now_ < slot.deadline + kDeadlineGrace) continue;
    const Status status = slot.ticket.Wait(layer);
    slot.pending[layer] = false;
    --slot.pending_count;
    if (status.ok())
      recorder_.LayerArrived(slot.intended, Now(), layer);
    else if (slot.failure.ok())
      slot.failure = status;
  }
  return slot.pending_count == 0;
}

void Runner::Finish(size_t slot_index) {
  Slot& slot = slots_[slot_index];
  const TimePoint arrived = Now();
  slot.ticket = {};
  if (!slot.failure.ok()) {
    Fail(slot.intended, arrived, slot.failure);
    free_.push_back(slot_index);
    return;
  }
  slot.latency = arrived - slot.intended;
  recorder_.Arrived(slot.intended, arrived);
  verify_due_ += verifier_.has_value() ? settings_.verify_rate : 0;
  if (verify_due_ >= 1) {
    verify_due_ -= 1;
    unverified_.push_back(slot_index);
  } else {
    recorder_.Ended({slot.intended, slot.latency});
    free_.push_back(slot_index);
  }
}

// Figures of a loop that ends here are of the time it ran.
void Runner::Fail(TimePoint intended, TimePoint at, const Status& why) {
  recorder_.Failed(intended, at, why);
  recorder_.Ended({intended, at - intended, why.code()});
  if (settings_.arrivals != Arrivals::kClosed) return;
  end_ = std::min(end_, at);
  recorder_.EndEarly(end_);
}

bool Runner::VerifySome() {
  if (unverified_.empty()) return false;
  Slot& slot = slots_[unverified_.front()];
  const size_t per_layer = parts_.pool->rows_per_layer();
  const size_t row_bytes = parts_.layout->row_format.row_bytes();
  const size_t layer = slot.verified / per_layer;
  const size_t first = slot.verified % per_layer;
  const size_t count = std::min(kVerifyChunkRows, per_layer - first);
  const TimePoint begin = Now();
  const uint64_t wrong_before = verifier_->figures().wrong_rows;
  verifier_->Check(slot.step, static_cast<uint32_t>(layer),
                   slot.lookups[layer].rows.subspan(first, count),
                   std::span(slot.out[layer]).subspan(first * row_bytes, count * row_bytes));
  now_ = Now();
  verifier_->figures().seconds += std::chrono::duration<double>(now_ - begin).count();
  slot.wrong_rows += verifier_->figures().wrong_rows - wrong_before;
  slot.verified += count;
  if (slot.verified == per_layer * slot.lookups.size()) {
    recorder_.Ended({slot.intended, slot.latency, Code::kOk, slot.wrong_rows});
    free_.push_back(unverified_.front());
    unverified_.pop_front();
  }
  return true;
}

// Sleeps only where nothing is under way and nothing due soon; else spins.
void Runner::Idle() {
  if (schedule_.has_value() && in_flight_.empty()) {
    const Nanos ahead = std::min(start_ + schedule_->due(), end_) - now_ - kSleepMargin;
    if (ahead > Nanos::zero()) host_.sleep(std::min(ahead, kSleepMax));
  } else {
    std::this_thread::yield();  // the source's own thread may need this core
  }
  now_ = Now();
}

void Runner::CountUnsent() {
  if (!schedule_.has_value()) return;
  constexpr uint64_t kUnsentMax = 50'000'000;
  for (uint64_t i = 0; i < kUnsentMax && start_ + schedule_->due() < end_; ++i) {
    recorder_.Unsent(start_ + schedule_->due());
    schedule_->Advance();
  }
}

}  // namespace

Host RealHost() {
  Host host;
  host.preemptions = [] {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return static_cast<uint64_t>(usage.ru_nivcsw);
  };
  host.sleep = [](Nanos time) { std::this_thread::sleep_for(time); };
  host.cpu_seconds = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  };
  return host;
}

Result<RunFigures> RunLoad(const RunSettings& settings, const RunParts& parts, const Host& host) {
  if (settings.verify_rate > 0 && parts.reference == nullptr) {
    return InvalidArgument(
        "verifying rows needs the right ones: --procedural, or --model with its table shards; "
        "--verify 0 goes without");
  }
  RunParts used = parts;
  if (settings.verify_rate <= 0) used.reference = nullptr;
  Runner runner(settings, used, host);
  RETURN_IF_ERROR(runner.MakeSlots());
  RunFigures figures = runner.Run();
  RETURN_IF_ERROR(runner.reference_unchanged());
  return figures;
}

}  // namespace engram::memnode::load
