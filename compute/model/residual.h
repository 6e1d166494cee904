// The residual path: G streams per token, mixed around each sublayer by hyper-connections (plain
// addition for G = 1). Streams are fp32.
#pragma once

#include <span>
#include <vector>

#include "compute/model/model_config.h"
#include "compute/model/weights.h"
#include "kernels/pool.h"

namespace engram::compute {

class Residual {
 public:
  Residual(const ModelConfig& config, kernels::Pool& pool) : config_(config), pool_(pool) {}

  // The mix of one sublayer, one per token.
  struct Mix {
    std::vector<float> pre;       // [T, G]
    std::vector<float> post;      // [T, G]
    std::vector<float> residual;  // [T, G, G]
  };
  // x [T, D] -> streams [T, G, D], all equal.
  std::vector<float> Spread(std::span<const float> x) const;
  Mix MixOf(const HyperWeights& weights, std::span<const float> streams) const;
  // The sublayer's input [T, D].
  std::vector<float> Collapse(Mix& mix, std::span<const float> streams) const;
  // Adds the sublayer's output y [T, D].
  void Expand(Mix& mix, std::span<const float> y, std::span<float> streams) const;
  // After the last block: the sum of the streams [T, D].
  std::vector<float> Sum(std::span<const float> streams) const;

 private:
  kernels::HyperMix TokenMix(Mix& mix, size_t token) const;
  size_t hidden() const { return static_cast<size_t>(config_.hidden_size); }
  size_t streams() const { return static_cast<size_t>(config_.streams); }
  size_t TokenCount(std::span<const float> x) const { return x.size() / hidden() / streams(); }

  const ModelConfig& config_;
  kernels::Pool& pool_;
};

}  // namespace engram::compute
