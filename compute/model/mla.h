// The attention sublayer: projections, rotation, cache, latent attention, output.
#pragma once

#include <span>
#include <vector>

#include "compute/model/model_config.h"
#include "compute/model/sequence_state.h"
#include "compute/model/weights.h"
#include "compute/parallel/collective.h"
#include "kernels/activations.h"
#include "kernels/pool.h"

namespace engram::compute {

class MlaBlock {
 public:
  // Each rank attends with its own heads and computes its own columns of the output.
  MlaBlock(const ModelConfig& config, kernels::Pool& pool, parallel::Collective& ranks);
  // [T, rope] of all segments' tokens: what rotates their queries and keys in every layer.
  std::vector<float> Rotations(std::span<const Segment> segments) const;
  // x [T, D] of all segments' tokens -> [T, D]; fills the layer's cache entries of their positions.
  std::vector<float> Forward(const AttentionWeights& weights, int64_t layer,
                             std::span<const Segment> segments, std::span<const float> rotations,
                             const kernels::Activations& x, PagePool& pages) const;

 private:
  std::vector<float> Queries(const AttentionWeights& weights, const kernels::Activations& x,
                             std::span<const float> rotations) const;
  void FillCache(const AttentionWeights& weights, int64_t layer, const kernels::Activations& x,
                 std::span<const Segment> segments, std::span<const float> rotations,
                 PagePool& pages) const;

  const ModelConfig& config_;
  kernels::Pool& pool_;
  parallel::Collective& ranks_;
  kernels::MlaShape shape_;  // of this rank's heads
  std::vector<double> frequencies_;
};

}  // namespace engram::compute
