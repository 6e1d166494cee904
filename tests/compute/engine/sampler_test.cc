// Which token is drawn, and what is said of it.
#include "compute/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "common/base/rng.h"

namespace engram::compute {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> LogsOf(std::vector<double> probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// How often each id is drawn in 8,000 draws.
std::map<int32_t, int> Draws(const std::vector<float>& logits, const SamplingOptions& options,
                             const TokenCounts& generated = {}) {
  std::map<int32_t, int> counts;
  for (int64_t n = 0; n < 8000; ++n) ++counts[ChooseToken(logits, options, generated, n)];
  return counts;
}

std::vector<int32_t> Ids(const std::map<int32_t, int>& counts) {
  std::vector<int32_t> ids;
  for (const auto& [id, count] : counts) ids.push_back(id);
  return ids;
}

TEST(Sampler, DrawsInProportionToTheSoftmax) {
  const auto counts = Draws(LogsOf({1, 2, 5}), {.seed = 3});
  EXPECT_NEAR(counts.at(0), 1000, 150);
  EXPECT_NEAR(counts.at(1), 2000, 200);
  EXPECT_NEAR(counts.at(2), 5000, 250);
}

TEST(Sampler, TemperatureFlattensAndZeroTakesTheFirstOfTheLargest) {
  const auto counts = Draws(LogsOf({1, 4}), {.temperature = 2, .seed = 3});  // 1 : 2
  EXPECT_NEAR(counts.at(0), 2667, 200);
  EXPECT_EQ(ChooseToken(std::vector<float>{1, 3, 3}, {.temperature = 0}, {}, 0), 1);
}

TEST(Sampler, TheNthDrawDependsOnSeedAndNAlone) {
  const std::vector<float> logits = LogsOf({1, 1, 1, 1, 1, 1, 1, 1});
  std::vector<int32_t> first, second, other;
  for (int64_t n = 0; n < 50; ++n) first.push_back(ChooseToken(logits, {.seed = 1}, {}, n));
  for (int64_t n = 49; n >= 0; --n) {
    second.insert(second.begin(), ChooseToken(logits, {.seed = 1}, {}, n));
  }
  for (int64_t n = 0; n < 50; ++n) other.push_back(ChooseToken(logits, {.seed = 2}, {}, n));
  EXPECT_EQ(first, second);
  EXPECT_NE(first, other);
}

TEST(Sampler, TopKKeepsTheLikeliestAndOfEqualsTheLowerIds) {
  EXPECT_THAT(Ids(Draws(LogsOf({1, 5, 2, 4}), {.top_k = 2})), ElementsAre(1, 3));
  EXPECT_THAT(Ids(Draws(LogsOf({1, 1, 1, 1}), {.top_k = 2})), ElementsAre(0, 1));
  EXPECT_THAT(Ids(Draws(LogsOf({1, 5}), {.top_k = 9})), ElementsAre(0, 1));
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = LogsOf({0.1, 0.5, 0.15, 0.25});
  EXPECT_THAT(Ids(Draws(logits, {.top_p = 0.4})), ElementsAre(1));
  EXPECT_THAT(Ids(Draws(logits, {.top_p = 0.6})), ElementsAre(1, 3));
  EXPECT_THAT(Ids(Draws(logits, {.top_p = 0.88})), ElementsAre(1, 2, 3));
  EXPECT_EQ(Draws(logits, {.top_p = 1}).size(), 4u);
  // Of what top_k leaves: 0.5 and 0.25 of 0.75.
  EXPECT_THAT(Ids(Draws(logits, {.top_k = 2, .top_p = 0.6})), ElementsAre(1));
}

TEST(Sampler, TopPOverAWideFlatVocabularyKeepsItsShare) {
  const std::vector<float> logits(5000, 0.25f);
  std::map<int32_t, int> counts = Draws(logits, {.top_p = 0.5});
  EXPECT_LT(counts.rbegin()->first, 2501);
  EXPECT_GT(counts.size(), 1900u);
}

TEST(Sampler, MinPDropsWhatIsFarBelowTheLikeliest) {
  EXPECT_THAT(Ids(Draws(LogsOf({0.1, 0.5, 0.15, 0.25}), {.min_p = 0.25})), ElementsAre(1, 2, 3));
}

TEST(Sampler, PenaltiesAndBiasMoveLogits) {
  const std::vector<float> logits = {1, 2, 3};
  SamplingOptions options{.temperature = 0};
  EXPECT_EQ(ChooseToken(logits, options, {{2, 1}}, 1), 2);
  options.presence_penalty = 1.5;
  EXPECT_EQ(ChooseToken(logits, options, {{2, 3}}, 3), 1);
  options.presence_penalty = 0;
  options.frequency_penalty = 0.75;
  EXPECT_EQ(ChooseToken(logits, options, {{2, 1}}, 1), 2);
  EXPECT_EQ(ChooseToken(logits, options, {{2, 2}}, 2), 1);
  options.logit_bias = {{0, 100.0f}, {1, -100.0f}};
  EXPECT_EQ(ChooseToken(logits, options, {}, 0), 0);
}

TEST(Sampler, ReportsTheModelsOwnDistribution) {
  const std::vector<float> logits = LogsOf({1, 2, 5});
  const SampledToken report = ReportToken(logits, 0, 2);
  EXPECT_EQ(report.token, 0);
  EXPECT_NEAR(report.logprob, std::log(1.0 / 8), 1e-6);
  ASSERT_EQ(report.top.size(), 2u);
  EXPECT_EQ(report.top[0].token, 2);
  EXPECT_NEAR(report.top[0].logprob, std::log(5.0 / 8), 1e-6);
  EXPECT_EQ(report.top[1].token, 1);
}

TEST(SamplingOptions, ChecksNameFieldValueAndRange) {
  const auto message = [](const SamplingOptions& options) { return options.Check(10).message(); };
  EXPECT_TRUE(SamplingOptions().Check(10).ok());
  EXPECT_THAT(message({.temperature = -1}), HasSubstr("temperature is -1"));
  EXPECT_THAT(message({.temperature = NAN}), HasSubstr("temperature is nan"));
  EXPECT_THAT(message({.top_k = -1}), HasSubstr("top_k is -1"));
  EXPECT_THAT(message({.top_p = 0}), HasSubstr("top_p is 0"));
  EXPECT_THAT(message({.top_p = 1.5}), HasSubstr("top_p is 1.5"));
  EXPECT_THAT(message({.min_p = -0.5}), HasSubstr("min_p"));
  EXPECT_THAT(message({.presence_penalty = 3}), HasSubstr("presence_penalty is 3"));
  EXPECT_THAT(message({.frequency_penalty = -2.5}), HasSubstr("frequency_penalty"));
  EXPECT_THAT(message({.logit_bias = {{10, 1.0f}}}), HasSubstr("token 10"));
  EXPECT_THAT(message({.logit_bias = {{1, 101.0f}}}), HasSubstr("101"));
  EXPECT_THAT(message({.top_logprobs = 21}), HasSubstr("top_logprobs is 21"));
}

}  // namespace
}  // namespace engram::compute
