// The residual path: G streams per token, mixed around each sublayer by hyper-connections (plain
// addition for G = 1). Streams are fp32.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/model/context.h"

namespace engram::compute {

// Around one sublayer.
class HyperConnections {
 public:
  // `norm` [D] is that of the sublayer's input.
  HyperConnections(const ModelContext& context, const HyperWeights& weights,
                   const std::vector<float>& norm)
      : context_(context), weights_(weights), norm_(norm) {}

  // streams [T, G, D] <- their mix, plus what `block` makes of their normed sum.
  template <typename Block>
  void Forward(std::span<float> streams, const StepContext& step, const Block& block) const {
    const kernels::Workspace::Scope scope(context_.memory());
    Sublayer sublayer(context_, step.tokens);
    Enter(streams, sublayer);
    block.Forward(sublayer.input, step, sublayer.output);
    Leave(sublayer, streams);
  }
  // Of the workspace, for a step of so many tokens.
  static int64_t FloatsOf(const ModelConfig& config, int64_t tokens, int64_t threads);

 private:
  // What the sublayer computes with, and how its output goes back into the streams.
  struct Sublayer {
    Sublayer(const ModelContext& context, int64_t tokens);
    kernels::HyperMix MixOf(int64_t token) const;
    kernels::Activations input;  // [T, D], normed
    std::span<float> output;     // [T, D]
    std::span<float> pre, post;  // [T, G]
    std::span<float> residual;   // [T, G, G]
  };
  void Enter(std::span<const float> streams, Sublayer& sublayer) const;
  void EnterToken(std::span<const float> streams, std::span<const float> projected, int64_t token,
                  Sublayer& sublayer) const;
  void Leave(const Sublayer& sublayer, std::span<float> streams) const;

  const ModelContext context_;
  const HyperWeights& weights_;
  const std::vector<float>& norm_;
};

// x [T, D] -> streams [T, G, D], all equal; and the sum of the streams.
void SpreadStreams(std::span<const float> x, int64_t count, int64_t width,
                   std::span<float> streams);
void SumStreams(std::span<const float> streams, int64_t count, int64_t width, std::span<float> sum);

}  // namespace engram::compute
