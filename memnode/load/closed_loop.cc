#include "memnode/load/closed_loop.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "memnode/load/id_source.h"

namespace engram::memnode::load {
namespace {

using SteadyClock = std::chrono::steady_clock;

// One outstanding step with buffers of its own; made once, used again and again.
struct Step {
  std::vector<std::vector<uint64_t>> rows;   // [layers][tokens * H]
  std::vector<std::vector<std::byte>> out;   // [layers][tokens * H * row_bytes]
  std::vector<client::LayerLookup> lookups;  // spans into the two above
  std::unique_ptr<client::Ticket> ticket;
  TimePoint begin;
};

class Loop {
 public:
  Loop(const ClosedLoopOptions& options, const table::TableLayout& layout,
       client::RowSource& service, client::RowSource* reference)
      : options_(options),
        layout_(layout),
        service_(service),
        reference_(reference),
        ids_(layout, options.seed),
        steps_(static_cast<size_t>(options.depth)) {
    const size_t layers = layout.layers.size();
    row_count_ =
        static_cast<size_t>(options.tokens) * static_cast<size_t>(layout.rows_per_position());
    for (Step& step : steps_) {
      step.rows.assign(layers, std::vector<uint64_t>(row_count_));
      step.out.assign(layers, std::vector<std::byte>(row_count_ * layout.row_format.row_bytes()));
      for (size_t i = 0; i < layers; ++i) {
        step.lookups.push_back({static_cast<uint32_t>(i), step.rows[i], step.out[i]});
      }
    }
    expected_.resize(row_count_ * layout.row_format.row_bytes());
  }

  // Runs for `seconds`, adding to `result`; leaves nothing outstanding.
  void Run(double seconds, LoadResult* result) {
    const TimePoint start = SteadyClock::now();
    const TimePoint end =
        start + std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
    const uint64_t distinct_before = service_.stats().rows_distinct;
    for (Step& step : steps_) Begin(step, result);
    for (size_t i = 0; result->errors == 0 && SteadyClock::now() < end;
         i = (i + 1) % steps_.size()) {
      Finish(steps_[i], result);
      if (result->errors == 0) Begin(steps_[i], result);
    }
    for (Step& step : steps_) {
      if (step.ticket != nullptr) Finish(step, result);
    }
    result->seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
    result->distinct_rows = service_.stats().rows_distinct - distinct_before;
  }

 private:
  void Fail(const Status& status, LoadResult* result) {
    if (result->errors++ == 0) result->first_error = status.message();
  }

  void Begin(Step& step, LoadResult* result) {
    for (size_t i = 0; i < step.rows.size(); ++i) ids_.Fill(static_cast<uint32_t>(i), step.rows[i]);
    step.begin = SteadyClock::now();
    auto ticket =
        service_.Submit(step.lookups, step.begin + std::chrono::milliseconds(options_.deadline_ms));
    if (!ticket.ok()) return Fail(ticket.status(), result);
    step.ticket = std::move(*ticket);
  }

  void Finish(Step& step, LoadResult* result) {
    const std::unique_ptr<client::Ticket> ticket = std::exchange(step.ticket, nullptr);
    for (const client::LayerLookup& lookup : step.lookups) {
      if (const Status status = ticket->Wait(lookup.layer_index); !status.ok())
        return Fail(status, result);
    }
    result->step_latency.Record(static_cast<uint64_t>((SteadyClock::now() - step.begin).count()));
    ++result->steps;
    result->rows += row_count_ * step.lookups.size();
    result->bytes += expected_.size() * step.lookups.size();
    if (options_.verify_every > 0 &&
        steps_finished_++ % static_cast<uint64_t>(options_.verify_every) == 0) {
      for (const client::LayerLookup& lookup : step.lookups) Verify(lookup, result);
    }
  }

  void Verify(const client::LayerLookup& lookup, LoadResult* result) {
    client::LayerLookup again = lookup;
    again.out = expected_;
    auto ticket = reference_->Submit({&again, 1}, SteadyClock::now() + std::chrono::seconds(30));
    const Status status = ticket.ok() ? (*ticket)->Wait(lookup.layer_index) : ticket.status();
    if (!status.ok()) return Fail(status.WithContext("reading the reference"), result);
    const size_t row_bytes = layout_.row_format.row_bytes();
    result->verified_rows += row_count_;
    if (std::memcmp(expected_.data(), lookup.out.data(), expected_.size()) == 0) return;
    for (size_t i = 0; i < row_count_; ++i) {
      const size_t at = i * row_bytes;
      if (std::memcmp(&expected_[at], &lookup.out[at], row_bytes) != 0) ++result->wrong_rows;
    }
  }

  const ClosedLoopOptions& options_;
  const table::TableLayout& layout_;
  client::RowSource& service_;
  client::RowSource* reference_;
  UniformIds ids_;
  std::vector<Step> steps_;
  std::vector<std::byte> expected_;
  size_t row_count_ = 0;
  uint64_t steps_finished_ = 0;
};

}  // namespace

Result<LoadResult> RunClosedLoop(const ClosedLoopOptions& options, const table::TableLayout& layout,
                                 client::RowSource& service, client::RowSource* reference) {
  if (options.verify_every > 0 && reference == nullptr) {
    return InvalidArgument(
        "verifying rows needs the tables in this process (--model with its table shards)");
  }
  Loop loop(options, layout, service, reference);
  LoadResult warm_up;
  loop.Run(options.warm_up_seconds, &warm_up);
  if (warm_up.errors > 0) return warm_up;
  LoadResult result;
  loop.Run(options.seconds, &result);
  result.verified_rows += warm_up.verified_rows;
  result.wrong_rows += warm_up.wrong_rows;
  return result;
}

}  // namespace engram::memnode::load
