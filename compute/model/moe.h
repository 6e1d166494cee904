// The feed-forward sublayers: one dense SwiGLU, or shared and routed experts.
#pragma once

#include <cstdint>
#include <span>

#include "compute/model/context.h"

namespace engram::compute {

class DenseBlock {
 public:
  // Of weights that are cut the ranks gather the middle and the outputs.
  // `next`, which may be null, is what the block after it reads first.
  DenseBlock(const ModelContext& context, const MlpWeights& weights, const Matrix* next = nullptr)
      : context_(context), weights_(weights), next_(next) {}
  void Forward(const kernels::Activations& x, std::span<float> y) const;  // [T, D] -> [T, D]
  void Forward(const kernels::Activations& x, const StepContext&, std::span<float> y) const {
    Forward(x, y);
  }

 private:
  const ModelContext context_;
  const MlpWeights& weights_;
  const Matrix* const next_;
};

class MoeBlock {
 public:
  // Each rank runs its own experts.
  MoeBlock(const ModelContext& context, const MoeWeights& weights, int64_t layer,
           const Matrix* next)
      : context_(context), weights_(weights), layer_(layer), next_(next) {}
  // x [T, D] -> y [T, D]. Tokens are grouped by expert; each token sums its experts in ascending
  // order, then the shared expert.
  void Forward(const kernels::Activations& x, const StepContext& step, std::span<float> y) const;

 private:
  // The tokens that each expert was given, expert after expert, in a workspace.
  struct Routes {
    std::span<const int32_t> first;  // [experts + 1]: expert e has entries [first[e], first[e + 1])
    std::span<const int32_t> tokens;  // [entries], ascending for an expert
    std::span<const float> weights;   // [entries]
  };
  Routes Route(const kernels::Activations& x) const;
  void Run(const kernels::Activations& x, const Routes& routes, parallel::Slice experts,
           bool with_shared, std::span<float> out) const;
  void RunOwn(const kernels::Activations& x, const Routes& routes, std::span<float> out) const;

  const ModelContext context_;
  const MoeWeights& weights_;
  const int64_t layer_;
  const Matrix* const next_;
};

// Of the workspace, for a step of so many tokens: either block.
int64_t FeedForwardFloatsOf(const ModelConfig& config, int64_t tokens, int64_t threads);

}  // namespace engram::compute
