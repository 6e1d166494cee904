#include "tests/compute/same_answers.h"

#include <gtest/gtest.h>

#include "tests/compute/run_completions.h"

namespace engram::compute {

TinyOptions OptionsOf(const std::string& name) {
  TinyOptions options;
  if (name == "v41") options.variant = "v41";
  if (name == "v41_fp8") options = {.variant = "v41", .fp8_wkv = true};
  if (name == "plain") options = {.variant = "", .q_lora = false, .streams = 1, .yarn = true};
  if (name == "f32") options.dtype = DType::kF32;
  if (name == "mixed_experts") options.some_f32_experts = true;
  if (name.starts_with("wide")) {
    options.intermediate = 200;
    options.moe_intermediate = 170;
    options.streams = 4;
    if (name == "wide_v41") options.variant = "v41";
    if (name == "wide_f32") options.dtype = DType::kF32;
  }
  return options;
}

TinyServing ServingOf(int64_t batch, int64_t chunk, int threads) {
  TinyServing serving;
  serving.threads = threads;
  serving.serving.scheduler.sequences_max = batch;
  serving.serving.scheduler.prefill_chunk = chunk;
  return serving;
}

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

}  // namespace engram::compute
