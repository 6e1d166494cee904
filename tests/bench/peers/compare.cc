#include "tests/bench/peers/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "tests/bench/harness/leg_maker.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/peers/contestants.h"

namespace engram::bench {
namespace {

constexpr uint64_t kBytesPerRowAll = 2000;  // of all contestants together

// One batch size's figures of one contestant, and its rows/s as a share of ours round by round.
struct Figures {
  Spread rows_per_s, p50_us, p99_us, ours_over_it;
};

Figures FiguresOf(const Series& series, const Series* ours) {
  Figures figures{
      SpreadOf(series.rows_per_s), SpreadOf(series.p50_us), SpreadOf(series.p99_us), {}};
  if (ours != nullptr) {
    figures.ours_over_it = SpreadOf(Ratios(ours->rows_per_s, series.rows_per_s));
  }
  return figures;
}

class Comparison {
 public:
  Comparison(const CompareOptions& options, const Tables& tables,
             std::vector<Contestant> contestants)
      : options_(options),
        tables_(tables),
        contestants_(std::move(contestants)),
        maker_(tables),
        environment_(Environment()) {}

  Status Run() {
    PrintSettings();
    for (const size_t batch : options_.batches) RETURN_IF_ERROR(RunBatch(batch));
    environment_["load_average_after"] = LoadAverage();
    fmt::print("load average after: {}\n", LoadAverage());
    if (options_.json_file.empty()) return OkStatus();
    json::array settings;
    for (const Contestant& contestant : contestants_) {
      settings.push_back({{"name", contestant.name},
                          {"version", contestant.version},
                          {"settings", contestant.settings},
                          {"skipped", contestant.skipped},
                          {"bytes_per_row", contestant.bytes_per_row}});
    }
    return WriteJson({{"environment", environment_},
                      {"rows", tables_.row_count()},
                      {"depth", options_.depth},
                      {"rounds", options_.rounds.rounds},
                      {"seconds", options_.rounds.seconds},
                      {"verify_every", options_.verify_every},
                      {"contestants", settings},
                      {"results", results_}},
                     options_.json_file);
  }

 private:
  void PrintSettings() const {
    fmt::print("environment\n{}", EnvironmentText(environment_));
    fmt::print(
        "rows: {} of {} bytes; ids uniform, seed {}, the same batches for all; closed loop, {} "
        "outstanding; servers on CPU {}, client on CPU {}, polling\n"
        "{} rounds of {} s, order reversed each round; every row compared in warm-up, one of {} "
        "when timed\n",
        tables_.row_count(), tables_.layout.row_format.row_bytes(), options_.seed, options_.depth,
        options_.cores.server, options_.cores.client, options_.rounds.rounds,
        options_.rounds.seconds, options_.verify_every);
    for (const Contestant& contestant : contestants_) {
      fmt::print("{}: {}\n", contestant.name,
                 contestant.skipped.empty() ? contestant.version + " | " + contestant.settings
                                            : "SKIPPED, " + contestant.skipped);
    }
  }

  Status RunBatch(size_t batch) {
    std::vector<Leg> legs;
    for (const Contestant& contestant : contestants_) {
      if (!contestant.skipped.empty()) continue;
      const size_t depth = std::min(options_.depth, contestant.depth_max);
      ASSIGN_OR_RETURN(auto reader, contestant.make_reader(depth));
      const LoopOptions loop{batch, depth, options_.verify_every};
      legs.push_back(maker_.Make(contestant.name, std::move(reader), loop));
    }
    ASSIGN_OR_RETURN(const std::vector<Series> all, RunRounds(legs, options_.rounds));
    Report(batch, all);
    return OkStatus();
  }

  void Report(size_t batch, const std::vector<Series>& all) {
    const Series* const ours = FindSeries(all, kOurs);
    std::vector<std::vector<std::string>> lines = {{fmt::format("{} rows a batch", batch),
                                                    "M rows/s (min..max)", "p50 us", "p99 us",
                                                    "bytes/row", "ours / it (min..max)"}};
    for (const Contestant& contestant : contestants_) {
      const Series* const series = FindSeries(all, contestant.name);
      if (series == nullptr) {
        lines.push_back({contestant.name, "SKIPPED"});
        continue;
      }
      const Figures figures = FiguresOf(*series, ours);
      lines.push_back({contestant.name, SpreadText(figures.rows_per_s, 1e-6, 2),
                       fmt::format("{:.1f}", figures.p50_us.median),
                       fmt::format("{:.1f}", figures.p99_us.median),
                       fmt::format("{:.0f}", contestant.bytes_per_row),
                       ours == nullptr ? "-" : SpreadText(figures.ours_over_it, 1, 1)});
      results_.push_back({{"name", contestant.name},
                          {"batch_rows", batch},
                          {"rows_per_s", SpreadJson(figures.rows_per_s)},
                          {"p50_us", SpreadJson(figures.p50_us)},
                          {"p99_us", SpreadJson(figures.p99_us)},
                          {"ours_over_it", SpreadJson(figures.ours_over_it)}});
    }
    fmt::print("\n{}  rows compared so far {}, wrong 0\n", TableText(lines), maker_.verified());
    std::fflush(stdout);
  }

  const CompareOptions& options_;
  const Tables& tables_;
  const std::vector<Contestant> contestants_;
  LegMaker maker_;
  json::object environment_;
  json::array results_;
};

}  // namespace

Status Compare(const CompareOptions& options) {
  for (const size_t batch : options.batches) {
    if (batch % kLayers != 0) {
      return InvalidArgument(
          fmt::format("--batches {}: a batch has as many rows of each of {} "
                      "layers, so give an even number",
                      batch, kLayers));
    }
  }
  ASSIGN_OR_RETURN(const Tables tables, MakeTables(options.rows, options.seed));
  RETURN_IF_ERROR(CheckMemoryFor(tables.row_count() * kBytesPerRowAll, "the comparison"));
  RETURN_IF_ERROR(PinThisThread(options.cores.client));
  const ScratchFolder work;
  ASSIGN_OR_RETURN(
      std::vector<Contestant> contestants,
      StartContestants(tables, options.cores, options.only, options.transport, work.path()));
  return Comparison(options, tables, std::move(contestants)).Run();
}

}  // namespace engram::bench
