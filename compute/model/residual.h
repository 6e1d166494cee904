// The residual path: G streams per token, mixed around each sublayer by hyper-connections (plain
// addition for G = 1). Streams are fp32.
#pragma once

#include <span>
#include <vector>

#include "compute/model/model_config.h"
#include "compute/model/weights.h"
#include "kernels/activations.h"
#include "kernels/pool.h"

namespace engram::compute {

class Residual {
 public:
  Residual(const ModelConfig& config, kernels::Pool& pool) : config_(config), pool_(pool) {}

  // What one sublayer computes with, and how its output goes back into the streams.
  struct Sublayer {
    kernels::Activations input;   // [T, D], normed
    std::vector<float> pre;       // [T, G]
    std::vector<float> post;      // [T, G]
    std::vector<float> residual;  // [T, G, G]
  };
  // x [T, D] -> streams [T, G, D], all equal.
  std::vector<float> Spread(std::span<const float> x) const;
  // The streams' mix, their sum by it, normed with `norm`: a token at a time, so that its streams
  // are read from memory once.
  void Enter(const HyperWeights& weights, std::span<const float> norm,
             std::span<const float> streams, Sublayer& sublayer) const;
  // Adds the sublayer's output y [T, D].
  void Leave(Sublayer& sublayer, std::span<const float> y, std::span<float> streams) const;
  // After the last block: the sum of the streams [T, D].
  std::vector<float> Sum(std::span<const float> streams) const;

 private:
  kernels::HyperMix MixOf(Sublayer& sublayer, size_t token) const;
  void FindMixes(const HyperWeights& weights, std::span<const float> streams, size_t first,
                 size_t count, Sublayer& sublayer) const;
  size_t hidden() const { return static_cast<size_t>(config_.hidden_size); }
  size_t streams() const { return static_cast<size_t>(config_.streams); }
  size_t TokenCount(std::span<const float> x) const { return x.size() / hidden() / streams(); }

  const ModelConfig& config_;
  kernels::Pool& pool_;
};

}  // namespace engram::compute
