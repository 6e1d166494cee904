// The benchmark's arithmetic: arrivals, percentiles, figures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compute/commands/bench_report.h"
#include "compute/commands/wake_up.h"
#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::HasSubstr;

TEST(Bench, ArrivalsComeAtTheRateAndFromTheSeedAlone) {
  const auto due = ArrivalsNs(100, 20'000, 3);
  EXPECT_NEAR(static_cast<double>(due.back()) * 1e-9, 200, 5);
  EXPECT_TRUE(std::is_sorted(due.begin(), due.end()));
  EXPECT_EQ(due, ArrivalsNs(100, 20'000, 3));
  EXPECT_NE(due, ArrivalsNs(100, 20'000, 4));
}

TEST(Bench, LengthsAreNumbersOrRanges) {
  EXPECT_EQ(ParseLengths("128")->min, 128);
  EXPECT_EQ(ParseLengths("64:512")->max, 512);
  for (const char* bad : {"", "0", "a", "5:", ":5", "9:3", "1:2:3", "-4"}) {
    EXPECT_THAT(ParseLengths(bad).status().message(), HasSubstr("is no length")) << bad;
  }
}

TEST(Bench, PercentilesAreByNearestRank) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  EXPECT_EQ(Percentile(values, 0.5), 50);
  EXPECT_EQ(Percentile(values, 0.99), 99);
  EXPECT_EQ(Percentile({7}, 0.01), 7);
  EXPECT_EQ(Percentile({}, 0.5), 0);
  EXPECT_EQ(SpreadText(SpreadOf({3, 1, 2}), 1, 1), "2.0 (1.0..3.0)");
}

TEST(Bench, LatenciesCountFromWhenARequestWasDue) {
  LoadResult result;
  result.seconds = 2;
  result.requests.push_back(
      {1'000'000, {4'000'000, 6'000'000, 9'000'000}, {1, 2, 3}, 5, OkStatus()});
  result.requests.push_back({0, {}, {}, 5, ResourceExhausted("full")});
  result.after.prefill_tokens = 10;
  result.after.prefill_ns = 5'000'000;
  result.after.step_ns = 1000;
  result.after.exposed_wait_ns = 10;
  const LoadFigures figures = FiguresOf(result);
  EXPECT_EQ(figures.completed, 1);
  EXPECT_EQ(figures.refused, 1);
  EXPECT_EQ(figures.first_token_ms, std::vector<double>{3});
  EXPECT_EQ(figures.inter_token_ms, (std::vector<double>{2, 3}));
  EXPECT_EQ(figures.request_ms, std::vector<double>{8});
  EXPECT_EQ(figures.output_tokens_per_s, 1.5);
  EXPECT_EQ(figures.prefill_tokens_per_s, 2000);
  EXPECT_EQ(figures.exposed_share, 0.01);
}

TEST(Bench, ALoadRunsToItsEndAndGivesTheSameAnswersTwice) {
  RequestLoad load;
  load.requests = 9;
  load.concurrency = 4;
  load.prompt = {3, 20};
  load.output = {2, 6};
  TinyEngine tiny(TinyOptions{}, TinyServing{});
  const LoadResult first = RunLoad(*tiny.engine, load, 97);
  load.rate = 500;
  const LoadResult second = RunLoad(*tiny.engine, load, 97);
  EXPECT_TRUE(SameTokens(first, second));
  EXPECT_EQ(FiguresOf(first).completed, 9);
  load.seed = 2;
  EXPECT_FALSE(SameTokens(first, RunLoad(*tiny.engine, load, 97)));
}

TEST(Bench, ASleepingThreadAnswersEveryRound) {
  const std::vector<double> wake_ups = WakeUpRoundTrips(5, 100);
  ASSERT_EQ(wake_ups.size(), 5u);
  for (const double microseconds : wake_ups) EXPECT_GT(microseconds, 0);
}

TEST(BenchReport, AShareAboveItsCeilingSaysWhichOfBothIsWrong) {
  DecodeBound bound{80e6, 20e6, 30, 32e6};
  EXPECT_DOUBLE_EQ(bound.Share(300), 1.0);
  EXPECT_TRUE(CheckBelow(bound, 314).ok());
  const Status above = CheckBelow(bound, 330);
  EXPECT_THAT(above.message(), testing::HasSubstr("1.10 of 30.0 GB/s"));
  EXPECT_THAT(above.message(), testing::HasSubstr("the figure is wrong"));
  bound.processor_cache_bytes = 260e6;
  EXPECT_THAT(CheckBelow(bound, 330).message(), testing::HasSubstr("the ceiling is wrong"));
}

TEST(BenchReport, PromptFlopsCountWeightsAndAttention) {
  ModelConfig model;
  model.layer_count = 10;
  model.attention = {.heads = 8, .rope = 32, .latent = 128};
  EXPECT_DOUBLE_EQ(PromptFlops(80e6, model, 0), 80e6);
  EXPECT_DOUBLE_EQ(PromptFlops(80e6, model, 1000), 80e6 + 2.0 * 10 * 8 * (160 + 128) * 1000);
}

}  // namespace
}  // namespace engram::compute
