#include "tests/bench/harness/rounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>

#include "tests/bench/harness/machine.h"

namespace engram::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

}  // namespace

ReaderLoop::ReaderLoop(BatchReader& reader, const IdPool& pool, RowVerifier& verifier,
                       size_t row_bytes, const LoopOptions& options)
    : reader_(reader),
      pool_(pool),
      verifier_(verifier),
      options_(options),
      out_(options.depth, std::vector<std::byte>(options.rows * row_bytes)) {}

Result<Round> ReaderLoop::Run(double seconds, bool warm_up) {
  const size_t verify_every = warm_up ? options_.verify_warm_up : options_.verify_every;
  struct Outstanding {
    Batch batch;
    std::vector<std::byte>* out;
    SteadyClock::time_point begin;
  };
  std::deque<Outstanding> outstanding;
  Round round;
  const auto start = SteadyClock::now();
  const auto end =
      start + std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
  bool more = true;
  while (more || !outstanding.empty()) {
    while (more && outstanding.size() < options_.depth) {
      const Batch batch = pool_.At(next_, options_.rows);
      std::vector<std::byte>& out = out_[next_ % options_.depth];
      ++next_;
      const auto begin = SteadyClock::now();
      RETURN_IF_ERROR(reader_.Begin(batch, out));
      outstanding.push_back({batch, &out, begin});
    }
    RETURN_IF_ERROR(reader_.End());
    const Outstanding done = outstanding.front();
    outstanding.pop_front();
    const auto now = SteadyClock::now();
    round.latency.Record(static_cast<uint64_t>((now - done.begin).count()));
    round.rows += options_.rows;
    verifier_.Check(done.batch, *done.out, verify_every);
    more = more && now < end && !Interrupted();
  }
  round.seconds = SecondsSince(start);
  if (verifier_.wrong() > 0) {
    return DataLoss(fmt::format("{} of {} compared rows had wrong bytes", verifier_.wrong(),
                                verifier_.verified()));
  }
  if (Interrupted()) return Cancelled("interrupted");
  return round;
}

Result<std::vector<Series>> RunRounds(std::span<const Leg> legs, const RoundOptions& options) {
  std::vector<Series> all;
  for (const Leg& leg : legs) {
    all.push_back({leg.name, {}, {}, {}});
    const auto warm_up = leg.run(options.warm_up_seconds, true);
    if (!warm_up.ok()) return warm_up.status().WithContext(leg.name + ", warm-up");
  }
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < legs.size(); ++i) {
      const size_t at = round % 2 == 0 ? i : legs.size() - 1 - i;
      const auto result = legs[at].run(options.seconds, false);
      if (!result.ok()) return result.status().WithContext(legs[at].name);
      all[at].rows_per_s.push_back(result->rows_per_s());
      all[at].p50_us.push_back(static_cast<double>(result->latency.QuantileNs(0.5)) / 1e3);
      all[at].p99_us.push_back(static_cast<double>(result->latency.QuantileNs(0.99)) / 1e3);
    }
  }
  return all;
}

const Series* FindSeries(std::span<const Series> all, const std::string& name) {
  for (const Series& series : all) {
    if (series.name == name) return &series;
  }
  return nullptr;
}

std::vector<double> Ratios(std::span<const double> a, std::span<const double> b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) ratios.push_back(a[i] / b[i]);
  return ratios;
}

}  // namespace engram::bench
