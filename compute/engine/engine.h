// The loop over one sequence: prefill in chunks, then one token a step. Rows are asked for before
// they are needed: the next chunk's before this chunk computes, a generated token's as soon as it
// is sampled.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "compute/memory/prefetcher.h"
#include "compute/model/transformer.h"

namespace engram::compute {

struct GenerateRequest {
  std::vector<int32_t> prompt;
  int64_t tokens_max = 16;
  double temperature = 0;
  uint64_t seed = 0;
  bool ignore_eos = false;
};

struct Generation {
  std::vector<int32_t> tokens;  // ends with an end-of-text token when one was sampled
  std::vector<float> logprobs;  // natural log, of each token of `tokens`
  bool ended_by_eos = false;
};

// Times of everything computed so far.
struct EngineStats {
  int64_t prefill_tokens = 0;
  int64_t prefill_ns = 0;
  int64_t decode_tokens = 0;  // tokens computed one at a time
  int64_t decode_ns = 0;
  int64_t step_ns() const { return prefill_ns + decode_ns; }
};

class Engine {
 public:
  // All references must outlive the engine.
  Engine(const ModelConfig& config, const Transformer& transformer, Prefetcher& prefetcher,
         int64_t prefill_chunk, const Clock& clock = Clock::Real());

  Result<Generation> Generate(const GenerateRequest& request);
  // log P(tokens[i] | tokens before) for i = 1..: one fewer than tokens.
  Result<std::vector<float>> Score(std::span<const int32_t> tokens);
  const EngineStats& stats() const { return stats_; }

 private:
  struct Sequence;
  // Hidden states [chunk tokens, D] and the position of the first.
  using ChunkDone = std::function<Status(int64_t first, std::span<const float> hidden)>;

  Status CheckTokens(std::span<const int32_t> tokens, int64_t more) const;
  Status Prefill(std::span<const int32_t> tokens, Sequence& sequence, const ChunkDone& done);
  Result<std::vector<float>> Compute(const TokenRun& step, Sequence& sequence);
  Status ScoreChunk(std::span<const int32_t> tokens, int64_t first, std::span<const float> hidden,
                    std::vector<float>& logprobs) const;
  Status Decode(const GenerateRequest& request, std::vector<float> hidden, Sequence& sequence,
                Generation& out);
  bool IsEos(int32_t token) const;

  const ModelConfig& config_;
  const Transformer& transformer_;
  Prefetcher& prefetcher_;
  int64_t prefill_chunk_;
  const Clock& clock_;
  EngineStats stats_;
  uint64_t next_sequence_ = 1;
};

}  // namespace engram::compute
