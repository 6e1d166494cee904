// The load tester against sources made for it: latency counts from the intended time, slips are
// refused, sources follow their law, wrong bytes are found, the knee is found.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "common/base/rng.h"
#include "common/table/ngram.h"
#include "memnode/load/instant_sources.h"
#include "memnode/load/knee.h"
#include "memnode/load/plot.h"
#include "memnode/load/report_json.h"
#include "memnode/load/report_steps.h"
#include "memnode/load/runner.h"
#include "memnode/load/schedule.h"
#include "memnode/load/trace.h"
#include "memnode/load/zipf.h"

namespace engram::memnode::load {
namespace {

using testing::HasSubstr;

// Each look at it takes a microsecond, so that spinning lets time pass.
class StepClock : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Nanos(now_ns_ += 1000)); }
  void Skip(Nanos time) { now_ns_ += time.count(); }

 private:
  mutable int64_t now_ns_ = 1'000'000;
};

LoadTables MakeTables() {
  TableOptions options;
  options.procedural = {.layout = "v41", .rows_scale = 0.0001, .seed = 3};
  auto tables = OpenTables(options, true);
  CHECK(tables.ok()) << tables.status().ToString();
  return std::move(*tables);
}

// Right rows, `latency` after they were asked for; the stalled step takes `stall`.
class SlowSource : public client::RowSource {
 public:
  SlowSource(const LoadTables& tables, const StepClock& clock) : tables_(tables), clock_(clock) {}
  const table::TableIdentity& identity() const override { return tables_.identity; }
  client::SourceStats stats() const override { return {}; }
  Result<client::Ticket> Submit(std::span<const client::LayerLookup> layers,
                                const client::SubmitOptions&) override {
    if (steps_ == fails_at) {
      ++steps_;
      return Unavailable("memory node m0: is gone");
    }
    const Nanos took = steps_++ == stalls_at ? stall : latency;
    const size_t row_bytes = tables_.layout.row_format.row_bytes();
    for (const client::LayerLookup& layer : layers) {
      for (size_t i = 0; i < layer.rows.size(); ++i) {
        tables_.reference->Fill(layer.layer_index, layer.rows[i],
                                layer.out.subspan(i * row_bytes, row_bytes));
      }
    }
    if (steps_ == spoils_at) layers[1].out[5 * row_bytes + 7] ^= std::byte{1};
    return client::Ticket(std::make_unique<Late>(clock_, clock_.Now() + took));
  }

  Nanos latency = std::chrono::microseconds(100);
  Nanos stall = latency;
  int64_t stalls_at = -1, spoils_at = -1, fails_at = -1;

 private:
  class Late : public client::PendingLookup {
   public:
    Late(const StepClock& clock, TimePoint at) : clock_(clock), at_(at) {}
    Status Wait(uint32_t) override {
      while (clock_.Now() < at_) {
      }
      return OkStatus();
    }
    bool Ready(uint32_t) const override { return clock_.Now() >= at_; }

   private:
    const StepClock& clock_;
    const TimePoint at_;
  };
  const LoadTables& tables_;
  const StepClock& clock_;
  int64_t steps_ = 0;
};

class LoadRun : public testing::Test {
 protected:
  LoadRun() : tables_(MakeTables()), source_(tables_, clock_) {
    settings_.arrivals = Arrivals::kConstant;
    settings_.steps_per_s = 1000;
    settings_.outstanding = 4;
    settings_.warm_up_seconds = 0.01;
    settings_.seconds = 1;
    shape_.tokens = 2;
    host_.clock = &clock_;
    host_.preemptions = [] { return uint64_t{0}; };
    host_.sleep = [this](Nanos time) { clock_.Skip(time); };
    host_.cpu_seconds = [] { return 0.0; };
  }
  Result<RunFigures> Run() {
    const auto maker = MakeUniformSteps(tables_.layout, 1);
    ASSIGN_OR_RETURN(const IdPool pool, IdPool::Make(*maker, tables_.layout, shape_, 1, 2000, ""));
    RunParts parts;
    parts.layout = &tables_.layout;
    parts.pool = &pool;
    parts.service = &source_;
    parts.reference = tables_.reference.get();
    return RunLoad(settings_, parts, host_);
  }

  StepClock clock_;
  const LoadTables tables_;
  SlowSource source_;
  RunSettings settings_;
  StepShape shape_;
  Host host_;
};

TEST_F(LoadRun, AQuietSourceHoldsItsRateWithEveryRowCompared) {
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_EQ(figures->steps_due, 1000u);
  EXPECT_EQ(figures->steps_unsent, 0u);
  EXPECT_LT(figures->latency_us(0.99), 200);
  EXPECT_EQ(figures->verify.wrong_rows, 0u);
  EXPECT_GE(figures->verify.rows, 1000 * figures->rows_per_step);
  EXPECT_EQ(RefusalOf(*figures), "");
}

// Coordinated omission: one stall of 200 ms makes about a fifth of all steps late, not one.
TEST_F(LoadRun, AStallCountsForEveryStepThatWasDueMeanwhile) {
  source_.stalls_at = 500;
  source_.stall = std::chrono::milliseconds(200);
  settings_.outstanding = 1;
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_GT(figures->latency_us(0.99), 150'000);
  EXPECT_GT(figures->latency_us(0.85), 10'000);
  EXPECT_LT(figures->latency_us(0.5), 1000);
  EXPECT_EQ(RefusalOf(*figures), "") << "waiting for the source is no fault of the tester";
}

TEST_F(LoadRun, AnErrorIsCountedByItsCodeAndTheRunGoesOn) {
  source_.fails_at = 100;
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_EQ(figures->errors, 1u);
  EXPECT_EQ(figures->errors_by_code.at(Code::kUnavailable), 1u);
  EXPECT_THAT(figures->first_error, HasSubstr("m0"));
  EXPECT_GT(figures->steps, 900u);
}

// A quarter of a run of one second: the rates are those of 0.25 s, not a quarter of them.
TEST_F(LoadRun, AClosedLoopThatFailsIsDividedByTheTimeItRan) {
  settings_.arrivals = Arrivals::kClosed;
  settings_.outstanding = 1;
  const auto whole = Run();
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  EXPECT_EQ(FailureOf(*whole), "");
  source_.fails_at = static_cast<int64_t>(whole->steps) * 5 / 4;  // counted from the first run on
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_NEAR(figures->seconds, 0.25, 0.05);
  EXPECT_NEAR(figures->steps_per_s(), whole->steps_per_s(), whole->steps_per_s() * 0.05);
  EXPECT_THAT(FailureOf(*figures), HasSubstr("m0: is gone"));
}

TEST_F(LoadRun, AStepThatFailsIsAFailureOfTheRun) {
  source_.fails_at = 100;
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_THAT(FailureOf(*figures), HasSubstr("1 of 1000 steps failed (0 of them"));
  EXPECT_THAT(FailureOf(*figures), HasSubstr("m0: is gone"));
}

TEST_F(LoadRun, AStepThatFailsWhileWarmingUpIsOneToo) {
  source_.fails_at = 3;
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_EQ(figures->errors, 0u);
  EXPECT_THAT(FailureOf(*figures), HasSubstr("1 of 1001 steps failed (1 of them"));
  EXPECT_FALSE(JudgeProbe(1000, 1e6, *figures).held);
}

TEST_F(LoadRun, AWrongByteIsFoundAndLocated) {
  source_.spoils_at = 300;
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_EQ(figures->verify.wrong_rows, 1u);
  ASSERT_TRUE(figures->verify.first.has_value());
  EXPECT_EQ(figures->verify.first->layer_index, 1u);
  EXPECT_EQ(figures->verify.first->byte, 7u);
  EXPECT_EQ(figures->verify.first->expected ^ figures->verify.first->got, 1);
}

TEST_F(LoadRun, EachStepIsListedWithItsOutcome) {
  settings_.keep_steps = true;
  source_.fails_at = 100;
  source_.spoils_at = 300;
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  ASSERT_EQ(figures->step_list.size(), 1000u);
  Nanos worst{0};
  uint64_t failed = 0, wrong_rows = 0;
  for (const StepFigures& step : figures->step_list) {
    worst = std::max(worst, step.latency);
    failed += step.code == Code::kUnavailable ? 1 : 0;
    wrong_rows += step.wrong_rows;
  }
  EXPECT_EQ(failed, 1u);
  EXPECT_EQ(wrong_rows, 1u);
  EXPECT_NEAR(static_cast<double>(worst.count()) / 1e3, figures->latency_us(1.0),
              figures->latency_us(1.0) * 0.05);

  const std::string path = testing::TempDir() + "load_steps.csv";
  ASSERT_TRUE(WriteSteps(*figures, path).ok());
  std::ifstream in(path);
  std::string header, first;
  std::getline(in, header);
  std::getline(in, first);
  EXPECT_EQ(header, "due_ns,latency_ns,outcome,wrong_rows");
  const StepFigures& step = figures->step_list[0];
  EXPECT_EQ(first,
            fmt::format("{},{},OK,0", step.due.time_since_epoch().count(), step.latency.count()));
  std::filesystem::remove(path);
}

TEST_F(LoadRun, AStopEndsTheRunEarlyWithFigures) {
  const std::atomic<bool> stop = true;
  host_.stop = &stop;
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  EXPECT_TRUE(figures->interrupted);
}

TEST_F(LoadRun, TheReportHasEveryKeyScriptsRelyOn) {
  const auto figures = Run();
  ASSERT_TRUE(figures.ok()) << figures.status().ToString();
  const json::object report = RunJson(*figures, "");
  for (const char* key :
       {"rows_per_s", "distinct_rows_per_s", "bytes_per_s", "steps_per_s", "step_latency_us",
        "errors", "verified_rows", "wrong_rows", "send_slip_ratio", "path"}) {
    EXPECT_TRUE(report.contains(key)) << key;
  }
  for (const char* key : {"p50", "p90", "p99", "p999", "max"}) {
    EXPECT_TRUE(report.at("step_latency_us").as_object().contains(key)) << key;
  }
}

TEST(Refusal, MoreThanOnePercentSentLateByTheTesterIsRefused) {
  RunFigures figures;
  figures.settings.arrivals = Arrivals::kPoisson;
  figures.steps_due = figures.steps_sent = 1000;
  figures.steps_slipped = 9;
  EXPECT_EQ(RefusalOf(figures), "");
  figures.steps_slipped = 11;
  EXPECT_NE(RefusalOf(figures), "");
}

TEST(ScheduleTest, ConstantArrivalsAreEvenAndPoissonOnesHaveTheirMean) {
  Schedule even(Arrivals::kConstant, 2000, 1);
  for (int i = 0; i < 10; ++i, even.Advance()) EXPECT_EQ(even.due().count(), i * 500'000);
  constexpr int kSteps = 100'000;
  Schedule poisson(Arrivals::kPoisson, 2000, 1), again(Arrivals::kPoisson, 2000, 1);
  for (int i = 0; i < kSteps; ++i) {
    ASSERT_EQ(poisson.due(), again.due());
    poisson.Advance();
    again.Advance();
  }
  // The sum of n exponential gaps has a standard deviation of sqrt(n) gaps.
  EXPECT_NEAR(static_cast<double>(poisson.due().count()) / 500'000, kSteps, 5 * std::sqrt(kSteps));
}

TEST(Zipf, FrequenciesFollowTheLaw) {
  for (const double theta : {0.5, 0.99, 1.0, 1.5}) {
    constexpr uint64_t kPopulation = 1000;
    constexpr int kDraws = 200'000;
    double norm = 0;
    for (uint64_t k = 1; k <= kPopulation; ++k) norm += std::pow(k, -theta);
    const ZipfRanks ranks(theta, kPopulation);
    Rng rng(5);
    std::map<uint64_t, int> seen;
    for (int i = 0; i < kDraws; ++i) ++seen[ranks.Next(rng)];
    EXPECT_GE(seen.begin()->first, 1u);
    EXPECT_LE(seen.rbegin()->first, kPopulation);
    for (const uint64_t k : {1u, 2u, 3u, 10u, 100u}) {
      const double p = std::pow(k, -theta) / norm;
      EXPECT_NEAR(seen[k], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p))) << theta << " " << k;
    }
  }
}

TEST(Sources, HeadsOfAnNgramComeTogether) {
  const LoadTables tables = MakeTables();
  const auto maker = MakeZipfSteps(tables.layout, 1.2, 1000, 7);
  constexpr size_t kPositions = 500;
  const auto per_position = static_cast<size_t>(tables.layout.rows_per_position());
  std::vector<std::vector<uint64_t>> rows(2, std::vector<uint64_t>(kPositions * per_position));
  std::vector<std::span<uint64_t>> spans(rows.begin(), rows.end());
  ASSERT_TRUE(maker->Fill(spans).ok());
  // Of the longest order: the same first heads mean the same n-gram, so the same other heads.
  std::map<std::pair<uint64_t, uint64_t>, std::vector<uint64_t>> heads;
  size_t repeats = 0;
  for (size_t position = 0; position < kPositions; ++position) {
    const auto first = rows[0].begin() + static_cast<ptrdiff_t>(position * per_position + 16);
    const std::vector<uint64_t> group(first, first + 8);
    const auto [at, is_new] = heads.try_emplace({group[0], group[1]}, group);
    repeats += is_new ? 0 : 1;
    EXPECT_EQ(at->second, group);
  }
  EXPECT_GT(repeats, kPositions / 4) << "at theta 1.2 the head of the law repeats";
}

TEST(Trace, ComesBackAsItWasRecordedAndDamageIsNamed) {
  const LoadTables tables = MakeTables();
  const std::string path = testing::TempDir() + "/load_trace.jsonl";
  StepShape shape = {.sequences = 2, .tokens = 3};
  std::vector<int64_t> tokens = {5, 6, 7, 8, 9, 10};
  {
    auto writer = TraceWriter::Create(path, shape, true);
    ASSERT_TRUE(writer.ok());
    writer->Write(std::span<const int64_t>(tokens));
    ASSERT_TRUE(writer->Close().ok());
  }
  StepShape read;
  auto maker = OpenTrace(path, tables, &read);
  ASSERT_TRUE(maker.ok()) << maker.status().ToString();
  EXPECT_EQ(read.sequences, 2);
  EXPECT_EQ(read.tokens, 3);
  const size_t rows_per_layer = shape.positions() * 24;
  std::vector<std::vector<uint64_t>> rows(2, std::vector<uint64_t>(rows_per_layer));
  std::vector<std::span<uint64_t>> spans(rows.begin(), rows.end());
  ASSERT_TRUE((*maker)->Fill(spans).ok());
  std::vector<uint64_t> expected(rows_per_layer / 2);
  table::HashRows(tables.layout, tables.layout.layers[0], {}, std::span(tokens).first(3), {},
                  expected);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), rows[0].begin())) << "sequence 0";
  std::ofstream(path, std::ios::app) << "{\"tokens\": [1, 2]}\n";
  const Status damaged = OpenTrace(path, tables, &read).status();
  EXPECT_FALSE(damaged.ok());
  EXPECT_THAT(damaged.message(), HasSubstr("3"));
  std::filesystem::remove(path);
}

TEST(Knee, IsWhereTheCurveCrossesTheBound) {
  const auto run = [](double rate) -> Result<RunFigures> {  // p99 = 100 us / (1 - rate / 10000)
    RunFigures figures;
    figures.settings.arrivals = Arrivals::kPoisson;
    figures.steps_due = figures.steps_sent = figures.steps = 1000;
    figures.seconds = 1;
    const double us = rate < 9999 ? 100 / (1 - rate / 10000) : 1e6;
    for (int i = 0; i < 1000; ++i) figures.step_latency.Record(static_cast<uint64_t>(us * 1000));
    return figures;
  };
  KneeOptions options;
  options.p99_us = 400;  // held up to 7500 steps/s
  options.low_steps_per_s = 100;
  options.high_steps_per_s = 10'000;
  int told = 0;
  const auto knee = FindKnee(options, run, [&](const Probe&) { ++told; });
  ASSERT_TRUE(knee.ok());
  ASSERT_GE(knee->best, 0);
  EXPECT_NEAR(knee->probes[static_cast<size_t>(knee->best)].steps_per_s, 7500, 7500 * 0.05);
  EXPECT_LE(knee->probes.size(), static_cast<size_t>(options.probes_max));
  EXPECT_EQ(told, static_cast<int>(knee->probes.size()));
  options.p99_us = 1;
  EXPECT_EQ(FindKnee(options, run, [](const Probe&) {})->best, -1);
}

TEST(Plot, IsOneSvgWithItsSeries) {
  PlotPanel panel;
  panel.title = "latency & rate";
  panel.series.push_back({"p99 < bound", {{1, 2}, {10, 30}}});
  panel.series.push_back({"p50", {{1, 1}, {10, 3}}});
  PlotPanel empty;
  empty.title = "nothing that can be drawn";
  empty.log_x = true;
  empty.series.push_back({"none", {{0, 1}}});
  const std::string trap = testing::TempDir() + "run_by_a_caption";
  const auto svg = RenderSvg({panel, empty}, "it's\nof `touch " + trap + "`");
  ASSERT_TRUE(svg.ok()) << svg.status().ToString();
  EXPECT_THAT(*svg, HasSubstr("<svg"));
  EXPECT_THAT(*svg, HasSubstr("latency &amp; rate"));
  EXPECT_THAT(*svg, HasSubstr("p99 &lt; bound"));
  EXPECT_THAT(*svg, HasSubstr("nothing that can be drawn"));
  EXPECT_THAT(*svg, HasSubstr("it's of `touch "));
  EXPECT_THAT(*svg, HasSubstr("</svg>"));
  EXPECT_FALSE(std::filesystem::exists(trap));
}

TEST(Plot, SaysWhichPackageIsMissing) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", "/nonexistent", 1);
  const Status missing = CheckGnuplot();
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(missing.code(), Code::kFailedPrecondition);
  EXPECT_THAT(missing.message(), HasSubstr("gnuplot-nox"));
  EXPECT_TRUE(CheckGnuplot().ok());
}

}  // namespace
}  // namespace engram::memnode::load
