// Models, requests and answers that tests compare bit for bit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/compute/tiny_model.h"

namespace engram::compute {

// "paper", "v41", "v41_fp8", "plain", "f32" or "mixed_experts"; "wide", "wide_v41" or "wide_f32":
// matrices of several tiles, the last one not full.
TinyOptions OptionsOf(const std::string& name);
TinyServing ServingOf(int64_t batch, int64_t chunk, int threads);

// Eight requests of different lengths; greedy and sampled, some with the same beginning.
std::vector<CompletionRequest> Requests();

struct Answer {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::vector<int32_t> top_ids;
  bool operator==(const Answer&) const = default;
};
// In the requests' order; empty, and a test failure, when one of them fails.
std::vector<Answer> Answers(TinyEngine& tiny, std::vector<CompletionRequest> requests);

}  // namespace engram::compute
