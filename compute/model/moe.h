// The feed-forward sublayers: one dense SwiGLU, or shared and routed experts.
#pragma once

#include <span>
#include <vector>

#include "compute/model/model_config.h"
#include "compute/model/weights.h"
#include "kernels/activations.h"
#include "kernels/pool.h"

namespace engram::compute {

// x [T, D] -> [T, D]. Of weights that are cut the ranks gather the middle and the outputs.
std::vector<float> DenseForward(kernels::Pool& pool, parallel::Collective& ranks,
                                const MlpWeights& weights, const kernels::Activations& x);

// Tokens are grouped by expert; each token sums its experts in ascending order, then the shared
// expert. expert_tokens [experts], or empty, grows by the tokens of each.
std::vector<float> MoeForward(kernels::Pool& pool, parallel::Collective& ranks,
                              const ModelConfig& config, const MoeWeights& weights,
                              const kernels::Activations& x, std::span<int64_t> expert_tokens);

}  // namespace engram::compute
