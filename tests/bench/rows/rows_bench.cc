#include "tests/bench/rows/rows_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "tests/bench/harness/ceilings.h"
#include "tests/bench/harness/leg_maker.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/harness/tables.h"
#include "tests/bench/rows/bare_round_trip.h"
#include "tests/bench/rows/gather_legs.h"
#include "tests/bench/rows/ratios.h"
#include "tests/bench/rows/service.h"
#include "tests/bench/rows/shapes.h"
#include "tests/bench/rows/sweep.h"
#include "tests/bench/rows/ucx_perftest.h"

namespace engram::bench {
namespace {

// What the service's messages carry beside rows, about; only the bare round trip's sizes need it.
constexpr size_t kIdBytes = 4;
constexpr size_t kRequestOverhead = 80;
constexpr size_t kReplyOverhead = 64;
constexpr size_t kCheckBytes = 4;

class RowsBench {
 public:
  explicit RowsBench(const RowsOptions& options) : options_(options) {}

  Status Run() {
    RETURN_IF_ERROR(Prepare());
    PrintSettings();
    RETURN_IF_ERROR(AddLegs());
    ASSIGN_OR_RETURN(const std::vector<Series> all, RunRounds(legs_, options_.rounds));
    const Judgement judged = JudgeRatios(all, options_.depth, options_.verify_every > 0);
    PrintSeries(all);
    PrintRatios(judged.rows);
    legs_.clear();
    services_.clear();
    json::array sweep, shapes;
    if (!options_.sweep_mib.empty() || options_.shapes) Release();
    if (!options_.sweep_mib.empty()) {
      ASSIGN_OR_RETURN(sweep, RunSweep(options_));
    }
    if (options_.shapes) {
      ASSIGN_OR_RETURN(shapes, RunShapes(options_));
    }
    fmt::print("load average after: {}\n", LoadAverage());
    if (!options_.json_file.empty()) {
      RETURN_IF_ERROR(WriteJson(Report(all, judged.rows, std::move(sweep), std::move(shapes)),
                                options_.json_file));
    }
    return LongEnoughToJudge(options_.rounds) ? CheckCeilings(judged.bounded) : OkStatus();
  }

 private:
  // Everything that holds rows.
  struct Memory {
    Tables tables;
    FilledArena filled;
    FilledArena shared;  // when shared memory does not get the huge pages that private memory gets

    const FilledArena& shareable() const { return shared.plan.layers.empty() ? filled : shared; }
  };

  Status Prepare() {
    environment_ = Environment();
    memory_ = std::make_unique<Memory>();
    ASSIGN_OR_RETURN(memory_->tables, TablesOfSize(options_.table_mib, options_.seed));
    const Tables& tables = memory_->tables;
    RETURN_IF_ERROR(CheckMemoryFor(2 * (options_.table_mib << 20) * 102 / 100,
                                   fmt::format("two tables of {} MiB", options_.table_mib)));
    ASSIGN_OR_RETURN(memory_->filled, FillArena(tables, /*shared=*/true));
    if (memory_->filled.arena.backing() == PageBacking::kSmall) {
      memory_->shared = std::move(memory_->filled);
      ASSIGN_OR_RETURN(memory_->filled, FillArena(tables, /*shared=*/false));
    }
    maker_ = std::make_unique<LegMaker>(memory_->tables);
    return OkStatus();
  }

  void Release() {
    maker_.reset();
    memory_.reset();
  }

  void PrintSettings() const {
    fmt::print(
        "environment\n{}"
        "rows: {} of {} bytes ({} MiB), arena {}, shared {}; ids uniform, seed {}\n"
        "closed loop, {} steps outstanding, service over {}; server on CPU {}, client on CPU {}, "
        "polling\n"
        "{} rounds of {} s, order reversed each round; service: every row's check verified; bytes "
        "compared with what they must be: every row in warm-up, one of {} when timed\n",
        EnvironmentText(environment_), memory_->tables.row_count(), memory_->tables.row_bytes(),
        options_.table_mib, PageBackingName(memory_->filled.arena.backing()),
        PageBackingName(memory_->shareable().arena.backing()), options_.seed, options_.depth,
        options_.transport, options_.cores.server, options_.cores.client, options_.rounds.rounds,
        options_.rounds.seconds, options_.verify_every);
  }

  Status AddLegs() {
    const LoopOptions step{options_.step_rows, 1, options_.verify_every};
    LoopOptions unverified = step;
    unverified.verify_every = 0;
    unverified.verify_warm_up = false;
    const memnode::Arena& arena = memory_->filled.arena;
    Add(kMemoryCopy, MakeMemoryCopy(arena), unverified);
    Add(kBareAhead, MakeBareGather(arena, BareLoop::kAhead), step);
    Add(kBareTogether, MakeBareGather(arena, BareLoop::kTogether), step);
    Add(kInProcess, MakeArenaGather(arena), step);
    Add(kServerAhead, MakeBareGather(arena, BareLoop::kAhead), step, options_.cores.server);
    Add(kServerTogether, MakeBareGather(arena, BareLoop::kTogether), step, options_.cores.server);
    ServiceOptions service;
    service.cores = options_.cores;
    service.wire = LoopbackWire(options_.transport);
    RETURN_IF_ERROR(AddService(service, memory_->filled, kService, kServiceToken));
    service.path = client::Path::kLocal;
    RETURN_IF_ERROR(AddService(service, memory_->shareable(), kShared, kSharedToken));
    service.path = client::Path::kGather;
    service.gather = false;
    RETURN_IF_ERROR(AddService(service, memory_->filled, kNoGather, ""));
    RETURN_IF_ERROR(AddRoundTrip(kRoundTrip, options_.step_rows));
    RETURN_IF_ERROR(AddRoundTrip(kRoundTripToken, options_.token_rows));
    AddUcxPerftest();
    return OkStatus();
  }

  bool Wanted(const std::string& leg) const {
    const auto in_name = [&](const std::string& part) { return leg.find(part) != leg.npos; };
    return options_.legs.empty() ||
           std::any_of(options_.legs.begin(), options_.legs.end(), in_name);
  }

  void Add(const std::string& name, std::unique_ptr<BatchReader> reader, const LoopOptions& loop) {
    if (Wanted(name)) legs_.push_back(maker_->Make(name, std::move(reader), loop));
  }

  // The same on core `cpu`.
  void Add(const std::string& name, std::unique_ptr<BatchReader> reader, const LoopOptions& loop,
           int cpu) {
    if (!Wanted(name)) return;
    const Leg leg = maker_->Make(name, std::move(reader), loop);
    legs_.push_back({name, [this, leg, cpu](double seconds, bool warm_up) -> Result<Round> {
                       RETURN_IF_ERROR(PinThisThread(cpu));
                       Result<Round> round = leg.run(seconds, warm_up);
                       RETURN_IF_ERROR(PinThisThread(options_.cores.client));
                       return round;
                     }});
  }

  Status AddService(const ServiceOptions& service, const FilledArena& filled,
                    const std::string& step_leg, const std::string& token_leg) {
    if (!Wanted(step_leg) && !Wanted(token_leg)) return OkStatus();
    ASSIGN_OR_RETURN(std::unique_ptr<Service> started,
                     Service::Start(filled, memory_->tables, service));
    LoopOptions loop{options_.step_rows, options_.depth, service.gather ? options_.verify_every : 0,
                     service.gather};
    Add(step_leg, started->MakeReader(loop.depth), loop);
    if (!token_leg.empty()) {
      loop.rows = options_.token_rows;
      loop.depth = 1;
      Add(token_leg, started->MakeReader(loop.depth), loop);
    }
    services_.push_back(std::move(started));
    return OkStatus();
  }

  Status AddRoundTrip(const std::string& name, size_t rows) {
    if (!Wanted(name)) return OkStatus();
    const size_t request = rows * kIdBytes + kRequestOverhead;
    const size_t reply = rows * (memory_->tables.row_bytes() + kCheckBytes) + kReplyOverhead;
    ASSIGN_OR_RETURN(std::unique_ptr<BareRoundTrip> pair,
                     BareRoundTrip::Start(request, reply, options_.cores));
    round_trips_.push_back(std::move(pair));
    legs_.push_back({name, [raw = round_trips_.back().get(), rows](double seconds, bool) {
                       return raw->Run(seconds, rows);
                     }});
    return OkStatus();
  }

  void AddUcxPerftest() {
    if (!Wanted(kUcx)) return;
    const std::string missing =
        options_.ucx_perftest ? UcxPerftest::Missing() : "not asked for (--no-ucx-perftest)";
    if (!missing.empty()) {
      skipped_.emplace_back(kUcx, missing);
      return;
    }
    scratch_.emplace();
    const size_t bytes = options_.step_rows * (memory_->tables.row_bytes() + kCheckBytes);
    ucx_ =
        std::make_unique<UcxPerftest>(bytes, options_.step_rows, options_.cores, scratch_->path());
    legs_.push_back({kUcx, [this](double seconds, bool) { return ucx_->Run(seconds); }});
  }

  void PrintSeries(const std::vector<Series>& all) const {
    std::vector<std::vector<std::string>> lines = {
        {"leg", "M rows/s (min..max)", "ns/row", "p50 us", "p99 us"}};
    for (const Series& series : all) {
      const Spread rate = SpreadOf(series.rows_per_s);
      lines.push_back({series.name, SpreadText(rate, 1e-6, 2),
                       fmt::format("{:.1f}", 1e9 / rate.median),
                       fmt::format("{:.1f}", SpreadOf(series.p50_us).median),
                       fmt::format("{:.1f}", SpreadOf(series.p99_us).median)});
    }
    for (const auto& [name, why] : skipped_) lines.push_back({name, "SKIPPED"});
    fmt::print("\n{}", TableText(lines));
    for (const auto& [name, why] : skipped_) fmt::print("  {}: SKIPPED, {}\n", name, why);
    fmt::print("  rows compared {}, wrong 0\n", maker_->verified());
  }

  json::object Report(const std::vector<Series>& all, const std::vector<RatioRow>& ratios,
                      json::array sweep, json::array shapes) {
    environment_["load_average_after"] = LoadAverage();
    json::array legs;
    for (const Series& series : all) {
      legs.push_back({{"name", series.name},
                      {"rows_per_s", SpreadJson(SpreadOf(series.rows_per_s))},
                      {"p50_us", SpreadJson(SpreadOf(series.p50_us))},
                      {"p99_us", SpreadJson(SpreadOf(series.p99_us))}});
    }
    json::array skipped;
    for (const auto& [name, why] : skipped_) skipped.push_back({{"name", name}, {"why", why}});
    return {{"environment", environment_},      {"table_mib", options_.table_mib},
            {"step_rows", options_.step_rows},  {"token_rows", options_.token_rows},
            {"depth", options_.depth},          {"transport", options_.transport},
            {"rounds", options_.rounds.rounds}, {"seconds", options_.rounds.seconds},
            {"legs", std::move(legs)},          {"ratios", RatiosJson(ratios)},
            {"skipped", std::move(skipped)},    {"sweep", std::move(sweep)},
            {"shapes", std::move(shapes)}};
  }

  const RowsOptions& options_;
  json::object environment_;
  std::unique_ptr<Memory> memory_;
  std::vector<std::unique_ptr<Service>> services_;  // read memory_
  std::vector<std::unique_ptr<BareRoundTrip>> round_trips_;
  std::optional<ScratchFolder> scratch_;
  std::unique_ptr<UcxPerftest> ucx_;
  std::unique_ptr<LegMaker> maker_;
  std::vector<Leg> legs_;
  std::vector<std::pair<std::string, std::string>> skipped_;
};

}  // namespace

Status RunRowsBench(const RowsOptions& options) {
  for (const size_t rows : {options.step_rows, options.token_rows}) {
    if (rows % kLayers != 0) {
      return InvalidArgument(fmt::format("{} rows a step: give an even number", rows));
    }
  }
  RETURN_IF_ERROR(PinThisThread(options.cores.client));
  return RowsBench(options).Run();
}

}  // namespace engram::bench
