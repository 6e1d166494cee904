// The same prompt gives the same tokens and log-probabilities, bit for bit: whatever shares the
// step with it, however it is cut, whether its beginning was cached, it was preempted, or how many
// threads compute.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

TinyOptions OptionsOf(const std::string& name) {
  TinyOptions options;
  if (name == "v41") options.variant = "v41";
  if (name == "v41_fp8") options = {.variant = "v41", .fp8_wkv = true};
  if (name == "plain") options = {.variant = "", .q_lora = false, .streams = 1, .yarn = true};
  if (name == "f32") options.dtype = DType::kF32;
  if (name == "mixed_experts") options.some_f32_experts = true;
  return options;
}

TinyServing ServingOf(int64_t batch, int64_t chunk, int threads) {
  TinyServing serving;
  serving.threads = threads;
  serving.serving.scheduler.sequences_max = batch;
  serving.serving.scheduler.prefill_chunk = chunk;
  return serving;
}

// Eight requests of different lengths; greedy and sampled, some with the same beginning.
std::vector<CompletionRequest> Requests() {
  const std::vector<int32_t> beginning = RandomTokens(40, 24, 97);
  std::vector<CompletionRequest> requests;
  for (uint64_t i = 0; i < 8; ++i) {
    std::vector<int32_t> prompt = i % 2 == 0 ? beginning : std::vector<int32_t>();
    const auto own = RandomTokens(50 + i, static_cast<int64_t>(3 + 17 * i), 97);
    prompt.insert(prompt.end(), own.begin(), own.end());
    requests.push_back(RequestOf(prompt, 20 + static_cast<int64_t>(i), i % 3 == 0 ? 0 : 0.9, i));
    requests.back().sampling.top_logprobs = 3;
    if (i == 5) requests.back().sampling.top_p = 0.8;
    if (i == 7) requests.back().sampling.frequency_penalty = 1.5;
  }
  return requests;
}

struct Answer {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::vector<int32_t> top_ids;
  bool operator==(const Answer&) const = default;
};

std::vector<Answer> Answers(TinyEngine& tiny, std::vector<CompletionRequest> requests) {
  std::vector<Answer> answers;
  for (const auto& result : RunCompletions(*tiny.engine, std::move(requests))) {
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (!result.ok()) return {};
    Answer answer{result->ids(), result->logprobs(), {}};
    for (const SampledToken& token : result->tokens) {
      for (const TokenLogprob& top : token.top) answer.top_ids.push_back(top.token);
    }
    answers.push_back(answer);
  }
  return answers;
}

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
