// The same prompt gives the same tokens and log-probabilities, bit for bit: whatever shares the
// step with it, however it is cut, whether its beginning was cached, it was preempted, how large a
// page of the cache is, or how many threads compute.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compute/same_answers.h"

namespace engram::compute {
namespace {

class Determinism : public testing::TestWithParam<std::string> {
 protected:
  TinyOptions options_ = OptionsOf(GetParam());
  // One request at a time, nothing cached, one thread, whole prompts.
  std::vector<Answer> Alone() const {
    std::vector<Answer> answers;
    for (const CompletionRequest& request : Requests()) {
      TinyEngine tiny(options_, ServingOf(1, 1 << 20, 1));
      answers.push_back(Answers(tiny, {request}).at(0));
    }
    return answers;
  }
};

TEST_P(Determinism, BatchesChunksAndThreadsChangeNothing) {
  const std::vector<Answer> alone = Alone();
  for (const int64_t batch : {1, 3, 8}) {
    for (const int64_t chunk : {7, 64, 1 << 20}) {
      for (const int threads : {1, 2}) {
        TinyEngine tiny(options_, ServingOf(batch, chunk, threads));
        EXPECT_EQ(Answers(tiny, Requests()), alone)
            << "batch " << batch << " chunk " << chunk << " threads " << threads;
      }
    }
  }
}

TEST_P(Determinism, PrefixHitsChangeNothing) {
  const std::vector<Answer> alone = Alone();
  TinyEngine tiny(options_, ServingOf(3, 7, 1));
  EXPECT_EQ(Answers(tiny, Requests()), alone);
  const int64_t hits = tiny.engine->Snapshot().prefix_hit_tokens;
  EXPECT_EQ(Answers(tiny, Requests()), alone);
  EXPECT_GT(tiny.engine->Snapshot().prefix_hit_tokens, hits + 8 * 24);
}

TEST_P(Determinism, PageSizesChangeNothing) {
  const std::vector<Answer> alone = Alone();
  for (const int64_t positions : {1, 2, 7, 32, 64}) {
    TinyServing serving = ServingOf(3, 16, 1);
    serving.pages = serving.pages * serving.page_positions / positions + 8;
    serving.page_positions = positions;
    TinyEngine tiny(options_, serving);
    EXPECT_EQ(Answers(tiny, Requests()), alone) << "pages of " << positions << " positions";
  }
}

TEST_P(Determinism, ACacheInBf16KeepsItsOwnBits) {
  TinyServing one = ServingOf(1, 1 << 20, 1);
  one.cache_dtype = DType::kBf16;
  TinyEngine whole(options_, one);
  const std::vector<Answer> alone = Answers(whole, Requests());
  for (const int threads : {1, 2}) {
    TinyServing serving = ServingOf(3, 7, threads);
    serving.cache_dtype = DType::kBf16;
    serving.pages = serving.pages * serving.page_positions / 32 + 8;
    serving.page_positions = 32;
    TinyEngine tiny(options_, serving);
    EXPECT_EQ(Answers(tiny, Requests()), alone) << "threads " << threads;
    EXPECT_EQ(Answers(tiny, Requests()), alone) << "with prefix hits, threads " << threads;
  }
}

// 2^-9 of each entry of the cache: a little in most log-probabilities, and more where two experts
// come out all but equal and the other one is chosen.
TEST_P(Determinism, ACacheInBf16MovesLogProbabilitiesALittle) {
  const std::vector<int32_t> tokens = RandomTokens(5, 150, 97);
  TinyServing serving = ServingOf(1, 64, 1);
  TinyEngine fp32(options_, serving);
  serving.cache_dtype = DType::kBf16;
  TinyEngine bf16(options_, serving);
  const auto exact = fp32.Score(tokens), rounded = bf16.Score(tokens);
  ASSERT_TRUE(exact.ok() && rounded.ok());
  std::vector<float> moved;
  for (size_t i = 0; i < exact->size(); ++i) moved.push_back(std::abs((*exact)[i] - (*rounded)[i]));
  std::sort(moved.begin(), moved.end());
  EXPECT_GT(moved.back(), 0.0f);
  EXPECT_LT(moved[moved.size() / 2], 0.01f);
  EXPECT_LT(moved[moved.size() * 9 / 10], 0.03f);
  RecordProperty("moved", fmt::format("p50 {} p90 {} max {}", moved[moved.size() / 2],
                                      moved[moved.size() * 9 / 10], moved.back()));
}

TEST_P(Determinism, PreemptionChangesNothing) {
  const std::vector<Answer> alone = Alone();
  TinyServing serving = ServingOf(8, 16, 1);
  serving.pages = 26;  // 208 positions; the longest request takes 173, all together about 900
  TinyEngine tiny(options_, serving);
  EXPECT_EQ(Answers(tiny, Requests()), alone);
  EXPECT_GT(tiny.engine->Snapshot().preemptions, 0);
  EXPECT_EQ(tiny.engine->Snapshot().pages_used, 0);
}

TEST_P(Determinism, AStepSharedByManyPromptsChangesNothing) {
  TinyServing serving = ServingOf(8, 1 << 20, 1);
  serving.serving.scheduler.step_tokens = 16;  // prompts get a few tokens each a step
  TinyEngine tiny(options_, serving);
  EXPECT_EQ(Answers(tiny, Requests()), Alone());
}

TEST_P(Determinism, ScoresDoNotDependOnChunksOrThreads) {
  const std::vector<int32_t> tokens = RandomTokens(5, 150, 97);
  TinyEngine tiny(options_, ServingOf(1, 1 << 20, 1));
  const auto whole = tiny.Score(tokens);
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  ASSERT_EQ(whole->size(), tokens.size() - 1);
  for (const int64_t chunk : {1, 7, 64}) {
    TinyEngine cut(options_, chunk, chunk == 7 ? 3 : 1);
    EXPECT_EQ(*cut.Score(tokens), *whole) << "chunk " << chunk;
  }
}

TEST_P(Determinism, GeneratedTokensScoreTheSameBitsAsAPrompt) {
  TinyEngine tiny(options_, 16, 1);
  const auto generated = tiny.Run(RequestOf(RandomTokens(6, 37, 97), 40, 1.0, 9));
  ASSERT_TRUE(generated.ok()) << generated.status().message();
  ASSERT_EQ(generated->tokens.size(), 40u);
  std::vector<int32_t> all = RandomTokens(6, 37, 97);
  for (const int32_t id : generated->ids()) all.push_back(id);
  const auto scores = tiny.Score(all);
  ASSERT_TRUE(scores.ok());
  EXPECT_EQ(std::vector<float>(scores->end() - 40, scores->end()), generated->logprobs());
}

INSTANTIATE_TEST_SUITE_P(Models, Determinism,
                         testing::Values("paper", "v41", "v41_fp8", "plain", "f32",
                                         "mixed_experts"),
                         [](const auto& param_info) { return param_info.param; });

}  // namespace
}  // namespace engram::compute
