#include "tests/bench/rows/ratios.h"

#include <fmt/format.h>

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

class Judge {
 public:
  explicit Judge(std::span<const Series> all) : all_(all) {}

  const Series* Find(const char* name) const { return FindSeries(all_, name); }

  // rows/s of one leg by another's.
  void Rate(const std::string& name, const char* of, const char* by, double bar) {
    const Series* const a = Find(of);
    const Series* const b = Find(by);
    if (a == nullptr || b == nullptr) return;
    rows.push_back({name, SpreadOf(Ratios(a->rows_per_s, b->rows_per_s)), bar, true, ""});
  }

  // p50 of one leg by another's.
  void Time(const std::string& name, const char* of, const char* by, double bar) {
    const Series* const a = Find(of);
    const Series* const b = Find(by);
    if (a == nullptr || b == nullptr) return;
    rows.push_back({name, SpreadOf(Ratios(a->p50_us, b->p50_us)), bar, false, ""});
  }

  // The service, and its share of the combined bound.
  void Service(size_t depth) {
    const Series* const service = Find(kService);
    const Series* const bare = Find(kBareGather);
    const Series* const no_gather = Find(kNoGather);
    if (service == nullptr || bare == nullptr || no_gather == nullptr) return;
    const std::vector<double> bound = CombinedBound(*bare, *no_gather);
    rows.push_back(
        {"combined bound 1/(1/bare + 1/without gather)", SpreadOf(bound), 0, true, "rows/s"});
    rows.push_back({"service / combined bound, step (stretch 0.8)",
                    SpreadOf(Ratios(service->rows_per_s, bound)), 0.7, true, ""});
    if (depth == 1) {  // else a step's time is mostly that of those before it
      std::vector<double> times;
      for (size_t i = 0; i < bound.size(); ++i) {
        times.push_back(bare->p50_us[i] + no_gather->p50_us[i]);
      }
      rows.push_back({"the same by p50 of a step, which preemption does not touch",
                      SpreadOf(Ratios(times, service->p50_us)), 0, true, ""});
    }
    rows.push_back({"service, step (on a quiet machine)", SpreadOf(service->rows_per_s), 14e6, true,
                    "rows/s"});
    rows.push_back(
        {"service, step, p50 in a closed loop", SpreadOf(service->p50_us), 250, false, "us"});
  }

  std::vector<RatioRow> rows;

 private:
  const std::span<const Series> all_;
};

}  // namespace

std::vector<RatioRow> JudgedRatios(std::span<const Series> all, size_t depth) {
  Judge judge(all);
  judge.Rate("in-process gather / bare gather", kInProcess, kBareGather, 0.9);
  judge.Rate("bare gather / memory copy", kBareGather, kMemoryCopy, 0);
  judge.Rate("shared memory / in-process gather, step", kShared, kInProcess, 0.7);
  judge.Service(depth);
  judge.Rate("service / ucx_perftest am_bw, step", kService, kUcx, 0);
  judge.Rate("service without gather / bare round trip, step", kNoGather, kRoundTrip, 0);
  judge.Time("p50 of a token / bare round trip", kServiceToken, kRoundTripToken, 1.5);
  return judge.rows;
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
