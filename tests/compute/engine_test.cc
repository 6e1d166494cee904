// The engine over made-up rows: the same bits however a prompt is cut, rows asked for ahead of
// time, errors that end a request and nothing else.
#include "compute/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compute/engine/sampler.h"
#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TinyOptions OptionsOf(const std::string& name) {
  TinyOptions options;
  if (name == "v41") options.variant = "v41";
  if (name == "v41_fp8") options = {.variant = "v41", .fp8_wkv = true};
  if (name == "plain") options = {.variant = "", .q_lora = false, .streams = 1, .yarn = true};
  if (name == "f32") options.dtype = DType::kF32;
  return options;
}

std::vector<float> Score(const TinyOptions& options, std::span<const int32_t> tokens, int64_t chunk,
                         int threads) {
  TinyEngine tiny(options, chunk, threads);
  auto scores = tiny.engine->Score(tokens);
  EXPECT_TRUE(scores.ok()) << scores.status().message();
  return scores.ok() ? *scores : std::vector<float>();
}

class Determinism : public testing::TestWithParam<std::string> {};

TEST_P(Determinism, ScoresDoNotDependOnChunksOrThreads) {
  const TinyOptions options = OptionsOf(GetParam());
  const std::vector<int32_t> tokens = RandomTokens(5, 150, 97);
  const std::vector<float> whole = Score(options, tokens, 1 << 20, 1);
  ASSERT_EQ(whole.size(), tokens.size() - 1);
  for (const int64_t chunk : {1, 7, 64})
    EXPECT_EQ(Score(options, tokens, chunk, 1), whole) << "chunk " << chunk;
  EXPECT_EQ(Score(options, tokens, 64, 2), whole);
  EXPECT_EQ(Score(options, tokens, 1 << 20, 3), whole);
}

TEST_P(Determinism, DecodedTokensScoreTheSameBitsAsAPrompt) {
  TinyEngine tiny(OptionsOf(GetParam()), 16, 1);
  GenerateRequest request;
  request.prompt = RandomTokens(6, 37, 97);
  request.tokens_max = 40;
  request.temperature = 1.0;
  request.seed = 9;
  request.ignore_eos = true;
  auto generated = tiny.engine->Generate(request);
  ASSERT_TRUE(generated.ok()) << generated.status().message();
  ASSERT_EQ(generated->tokens.size(), 40u);
  std::vector<int32_t> all = request.prompt;
  all.insert(all.end(), generated->tokens.begin(), generated->tokens.end());
  auto scores = tiny.engine->Score(all);
  ASSERT_TRUE(scores.ok());
  EXPECT_EQ(std::vector<float>(scores->end() - 40, scores->end()), generated->logprobs);
}

INSTANTIATE_TEST_SUITE_P(Models, Determinism,
                         testing::Values("paper", "v41", "v41_fp8", "plain", "f32"),
                         [](const auto& param_info) { return param_info.param; });

TEST(Engine, EngramRowsChangeTheAnswer) {
  const std::vector<int32_t> tokens = RandomTokens(7, 30, 97);
  TinyEngine tiny(OptionsOf("paper"), 64, 1);
  const auto scores = tiny.engine->Score(tokens);
  tiny.source->spoil = true;
  const auto changed = tiny.engine->Score(tokens);
  ASSERT_TRUE(scores.ok() && changed.ok());
  EXPECT_NE(*scores, *changed);
}

TEST(Engine, SameSeedSameTokensAndGreedyIgnoresTheSeed) {
  TinyEngine tiny(OptionsOf("paper"), 16, 1);
  GenerateRequest request{RandomTokens(8, 10, 97), 20, 0.9, 4, true};
  const auto first = tiny.engine->Generate(request);
  const auto second = tiny.engine->Generate(request);
  request.seed = 5;
  const auto other = tiny.engine->Generate(request);
  ASSERT_TRUE(first.ok() && second.ok() && other.ok());
  EXPECT_EQ(first->tokens, second->tokens);
  EXPECT_NE(first->tokens, other->tokens);
  request.temperature = 0;
  const auto greedy = tiny.engine->Generate(request);
  request.seed = 4;
  EXPECT_EQ(greedy->tokens, tiny.engine->Generate(request)->tokens);
}

TEST(Engine, StopsAtEndOfTextUnlessToldToIgnoreIt) {
  TinyEngine tiny(OptionsOf("paper"), 16, 1);
  GenerateRequest request{RandomTokens(8, 10, 97), 30, 0, 0, true};
  const auto free = tiny.engine->Generate(request);
  ASSERT_TRUE(free.ok());
  ASSERT_EQ(free->tokens.size(), 30u);
  const int32_t stop = free->tokens[3];
  const auto first =
      std::find(free->tokens.begin(), free->tokens.end(), stop) - free->tokens.begin();
  tiny.config.eos_ids = {stop};
  request.ignore_eos = false;
  const auto stopped = tiny.engine->Generate(request);
  ASSERT_TRUE(stopped.ok());
  EXPECT_TRUE(stopped->ended_by_eos);
  EXPECT_EQ(static_cast<int64_t>(stopped->tokens.size()), first + 1);
}

TEST(Engine, AsksForTheNextChunkBeforeThisOneComputesAndForATokenOnceSampled) {
  TinyEngine tiny(OptionsOf("paper"), 4, 1);
  std::vector<std::string> events;
  tiny.source->on_event = [&](const std::string& event) { events.push_back(event); };
  GenerateRequest request{RandomTokens(8, 6, 97), 2, 0, 0, true};
  ASSERT_TRUE(tiny.engine->Generate(request).ok());
  // 4 rows a position: chunks of 4 and 2 tokens, then one generated token is computed.
  EXPECT_THAT(events, ElementsAre("submit 16", "submit 8", "wait 0", "wait 1", "wait 0", "wait 1",
                                  "submit 4", "wait 0", "wait 1"));
  EXPECT_EQ(tiny.prefetcher->late_tokens(), 0);
}

TEST(Engine, AMissingRowEndsTheRequestButNotTheEngine) {
  TinyEngine tiny(OptionsOf("paper"), 4, 1);
  tiny.source->fail_from_submit = 2;
  tiny.source->failure = Unavailable("memory node m1: 3 rows missing");
  const auto failed = tiny.engine->Score(RandomTokens(8, 12, 97));
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), Code::kUnavailable);
  EXPECT_THAT(failed.status().message(), HasSubstr("layer 1"));
  EXPECT_THAT(failed.status().message(), HasSubstr("positions 4 to 7"));
  EXPECT_THAT(failed.status().message(), HasSubstr("memory node m1"));
  tiny.source->fail_from_submit = INT64_MAX;
  EXPECT_TRUE(tiny.engine->Score(RandomTokens(8, 12, 97)).ok());
}

TEST(Engine, RefusesTokensItCannotCompute) {
  TinyEngine tiny(OptionsOf("paper"), 4, 1);
  EXPECT_EQ(tiny.engine->Score({}).status().code(), Code::kInvalidArgument);
  const auto outside = tiny.engine->Score(std::vector<int32_t>{1, 97});
  EXPECT_EQ(outside.status().code(), Code::kOutOfRange);
  EXPECT_THAT(outside.status().message(), HasSubstr("token 97 at index 1"));
  EXPECT_FALSE(tiny.engine->Score(std::vector<int32_t>{-1}).ok());
  EXPECT_THAT(tiny.engine->Score(RandomTokens(1, 513, 97)).status().message(),
              HasSubstr("max_position_embeddings 512"));
}

TEST(Engine, NonFiniteLogitsAreAnErrorNotAnAnswer) {
  TinyEngine tiny(OptionsOf("plain"), 4, 1);
  tiny.weights.norm[3] = NAN;
  EXPECT_EQ(tiny.engine->Score(RandomTokens(8, 5, 97)).status().code(), Code::kInternal);
}

TEST(Sampler, DrawsInProportionToTheSoftmax) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  Sampler sampler(1.0, 3);
  std::vector<int> counts(3, 0);
  for (int i = 0; i < 8000; ++i) ++counts[static_cast<size_t>(sampler.Sample(logits))];
  EXPECT_NEAR(counts[0], 1000, 150);
  EXPECT_NEAR(counts[1], 2000, 200);
  EXPECT_NEAR(counts[2], 5000, 250);
  EXPECT_EQ(Sampler(0, 1).Sample(std::vector<float>{1, 3, 3}), 1);
}

}  // namespace
}  // namespace engram::compute
