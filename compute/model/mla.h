// The attention sublayer: projections, rotation, cache, latent attention, output.
#pragma once

#include <span>
#include <vector>

#include "compute/model/model_config.h"
#include "compute/model/sequence_state.h"
#include "compute/model/weights.h"
#include "kernels/pool.h"

namespace engram::compute {

class MlaBlock {
 public:
  MlaBlock(const ModelConfig& config, kernels::Pool& pool);
  // x [T, D] at positions sequence.length.. -> [T, D]; fills the layer's cache entries of those
  // positions.
  std::vector<float> Forward(const AttentionWeights& weights, int64_t layer,
                             std::span<const float> x, SequenceState& sequence) const;

 private:
  std::vector<float> Queries(const AttentionWeights& weights, std::span<const float> x,
                             int64_t first) const;
  void FillCache(const AttentionWeights& weights, std::span<const float> x, int64_t first,
                 std::span<float> entries) const;

  const ModelConfig& config_;
  kernels::Pool& pool_;
  std::vector<double> frequencies_;
};

}  // namespace engram::compute
