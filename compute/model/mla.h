// The attention sublayer: projections, rotation, cache, latent attention, output.
#pragma once

#include <cstdint>
#include <span>

#include "compute/model/context.h"

namespace engram::compute {

class MlaBlock {
 public:
  // Each rank attends with its own heads and computes its own columns of the output.
  // `next`, which may be null, is what the block after it reads first.
  MlaBlock(const ModelContext& context, const AttentionWeights& weights, int64_t layer,
           const kernels::PackedMatrix* next);
  // x [T, D] -> y [T, D]; fills the layer's cache entries of the tokens' positions.
  void Forward(const kernels::Activations& x, const StepContext& step, std::span<float> y) const;
  // Of the workspace, for a step of so many tokens.
  static int64_t FloatsOf(const ModelConfig& config, int64_t tokens, int64_t threads);

 private:
  void Project(const kernels::Activations& x, const StepContext& step, std::span<float> q,
               std::span<float> entries) const;
  void FillCache(const StepContext& step, std::span<float> entries) const;

  const ModelContext context_;
  const AttentionWeights& weights_;
  const int64_t layer_;
  const kernels::PackedMatrix* const next_;
  kernels::MlaShape shape_;  // of this rank's heads
};

}  // namespace engram::compute
