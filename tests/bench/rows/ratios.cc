#include "tests/bench/rows/ratios.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "tests/bench/harness/report.h"

namespace engram::bench {
namespace {

// 1/(1/a + 1/b) round by round: a gather and a transfer that take turns on one core.
std::vector<double> CombinedBound(const Series& a, const Series& b) {
  std::vector<double> bound;
  for (size_t i = 0; i < a.rows_per_s.size() && i < b.rows_per_s.size(); ++i) {
    bound.push_back(1 / (1 / a.rows_per_s[i] + 1 / b.rows_per_s[i]));
  }
  return bound;
}

// Of the bare loops, round by round, the faster one.
std::optional<Series> FasterBare(std::span<const Series> all, const char* name,
                                 const char* ahead_name, const char* together_name) {
  const Series* const ahead = FindSeries(all, ahead_name);
  const Series* const together = FindSeries(all, together_name);
  if (ahead == nullptr || together == nullptr) return std::nullopt;
  Series faster = *ahead;
  faster.name = name;
  for (size_t i = 0; i < faster.rows_per_s.size(); ++i) {
    faster.rows_per_s[i] = std::max(ahead->rows_per_s[i], together->rows_per_s[i]);
    faster.p50_us[i] = std::min(ahead->p50_us[i], together->p50_us[i]);
  }
  return faster;
}

enum class By { kCeiling, kLeg };

class Judge {
 public:
  Judge(std::span<const Series> all, bool compared)
      : bare_(FasterBare(all, kBareGather, kBareAhead, kBareTogether)),
        server_bare_(FasterBare(all, kServerGather, kServerAhead, kServerTogether)),
        all_(all),
        compared_(compared) {}

  // rows/s of one leg by another's.
  void Rate(const std::string& name, const char* of, const char* by, double bar, By kind) {
    const Series* const a = Find(of);
    const Series* const b = Find(by);
    if (a == nullptr || b == nullptr) return;
    const Spread ratio = SpreadOf(Ratios(a->rows_per_s, b->rows_per_s));
    made.rows.push_back({name, ratio, bar, true, ""});
    if (kind == By::kCeiling) made.bounded.push_back({of, by, ratio, compared_});
  }

  // p50 of one leg by that of the least there is.
  void Time(const std::string& name, const char* of, const char* by, double bar) {
    const Series* const a = Find(of);
    const Series* const b = Find(by);
    if (a == nullptr || b == nullptr) return;
    made.rows.push_back({name, SpreadOf(Ratios(a->p50_us, b->p50_us)), bar, false, ""});
    made.bounded.push_back({of, by, SpreadOf(Ratios(b->p50_us, a->p50_us)), compared_});
  }

  // A service, and its share of the combined bound.
  void Service(const char* service_leg, const char* no_gather_leg, double bar, size_t depth) {
    const Series* const service = Find(service_leg);
    const Series* const bare = Find(kServerGather);
    const Series* const no_gather = Find(no_gather_leg);
    if (service == nullptr || bare == nullptr || no_gather == nullptr) return;
    const std::string name = service_leg;
    const std::vector<double> bound = CombinedBound(*bare, *no_gather);
    const Spread share = SpreadOf(Ratios(service->rows_per_s, bound));
    made.rows.push_back({name + ": combined bound", SpreadOf(bound), 0, true, "rows/s"});
    made.rows.push_back({name + " / combined bound (stretch 0.9)", share, bar, true, ""});
    made.bounded.push_back({name, "combined bound", share, compared_});
    if (depth == 1) {  // else a step's time is mostly that of those before it
      std::vector<double> times;
      for (size_t i = 0; i < bound.size(); ++i) {
        times.push_back(bare->p50_us[i] + no_gather->p50_us[i]);
      }
      made.rows.push_back({"the same by p50 of a step, which preemption does not touch",
                           SpreadOf(Ratios(times, service->p50_us)), 0, true, ""});
    }
  }

  // Figures of a quiet machine, which no ratio replaces.
  void Absolute(const char* leg) {
    const Series* const service = Find(leg);
    if (service == nullptr) return;
    const std::string name = leg;
    made.rows.push_back(
        {name + " (on a quiet machine)", SpreadOf(service->rows_per_s), 14e6, true, "rows/s"});
    made.rows.push_back(
        {name + ", p50 in a closed loop", SpreadOf(service->p50_us), 250, false, "us"});
  }

  Judgement made;

 private:
  const Series* Find(const std::string& name) const {
    if (name == kBareGather) return bare_ ? &*bare_ : nullptr;
    if (name == kServerGather) return server_bare_ ? &*server_bare_ : nullptr;
    return FindSeries(all_, name);
  }

  std::optional<Series> bare_, server_bare_;
  const std::span<const Series> all_;
  const bool compared_;
};

}  // namespace

Judgement JudgeRatios(std::span<const Series> all, size_t depth, bool compared) {
  Judge judge(all, compared);
  judge.Rate("bare gather / memory copy", kBareGather, kMemoryCopy, 0, By::kCeiling);
  judge.Rate("in-process gather / bare gather", kInProcess, kBareGather, 0.95, By::kCeiling);
  judge.Rate("shared memory / bare gather, step", kShared, kBareGather, 0.8, By::kCeiling);
  judge.Service(kService, kNoGather, 0.8, depth);
  judge.Absolute(kService);
  judge.Time("p50 of a token / bare round trip", kServiceToken, kRoundTripToken, 1.5);
  judge.Rate("service / ucx_perftest am_bw, step", kService, kUcx, 0, By::kLeg);
  judge.Rate("service without gather / bare round trip, step", kNoGather, kRoundTrip, 0, By::kLeg);
  return std::move(judge.made);
}

void PrintRatios(std::span<const RatioRow> ratios) {
  std::vector<std::vector<std::string>> lines = {{"of one run", "median (min..max)", "bar", ""}};
  for (const RatioRow& row : ratios) {
    const bool rate = row.unit == "rows/s";
    const std::string unit = rate ? " M rows/s" : row.unit.empty() ? "" : " " + row.unit;
    const double scale = rate ? 1e-6 : 1;
    const std::string bar =
        row.bar == 0 ? "-"
                     : fmt::format("{} {:g}{}", row.at_least ? ">=" : "<=", row.bar * scale, unit);
    lines.push_back({row.name, SpreadText(row.value, scale, row.unit.empty() ? 3 : 1) + unit, bar,
                     row.bar == 0 ? ""
                     : row.met()  ? "met"
                                  : "MISSED"});
  }
  fmt::print("\n{}", TableText(lines));
}

json::array RatiosJson(std::span<const RatioRow> ratios) {
  json::array rows;
  for (const RatioRow& row : ratios) {
    json::object entry = SpreadJson(row.value);
    entry["name"] = row.name;
    if (row.bar != 0) {
      entry["bar"] = row.bar;
      entry["at_least"] = row.at_least;
      entry["met"] = row.met();
    }
    rows.push_back(std::move(entry));
  }
  return rows;
}

}  // namespace engram::bench
