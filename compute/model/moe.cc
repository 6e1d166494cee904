#include "compute/model/moe.h"

#include <algorithm>

namespace engram::compute {
namespace {

struct Assignment {
  size_t token = 0;
  float weight = 0;
};

// Per expert the tokens that chose it, in token order.
std::vector<std::vector<Assignment>> Route(kernels::Pool& pool, const ModelConfig& config,
                                           const MoeWeights& weights, std::span<const float> x) {
  const size_t tokens = x.size() / static_cast<size_t>(config.hidden_size);
  const size_t experts = weights.experts.size();
  std::vector<float> logits(tokens * experts);
  kernels::Linear(pool, x, weights.gate, logits);
  std::vector<std::vector<Assignment>> assigned(experts);
  std::vector<int32_t> chosen(static_cast<size_t>(config.route.experts_per_token));
  std::vector<float> scales(chosen.size());
  for (size_t t = 0; t < tokens; ++t) {
    kernels::RouteToken(config.route, {logits.data() + t * experts, experts}, weights.bias, chosen,
                        scales);
    for (size_t k = 0; k < chosen.size(); ++k) {
      assigned[static_cast<size_t>(chosen[k])].push_back({t, scales[k]});
    }
  }
  return assigned;
}

}  // namespace

std::vector<float> DenseForward(kernels::Pool& pool, const MlpWeights& weights,
                                std::span<const float> x) {
  const size_t tokens = x.size() / static_cast<size_t>(weights.gate.columns);
  std::vector<float> gate(tokens * static_cast<size_t>(weights.gate.rows));
  std::vector<float> up(gate.size());
  std::vector<float> out(tokens * static_cast<size_t>(weights.down.rows));
  kernels::Linear(pool, x, weights.gate, gate);
  kernels::Linear(pool, x, weights.up, up);
  kernels::SwiGlu(gate, up);
  kernels::Linear(pool, gate, weights.down, out);
  return out;
}

std::vector<float> MoeForward(kernels::Pool& pool, const ModelConfig& config,
                              const MoeWeights& weights, std::span<const float> x) {
  const auto width = static_cast<size_t>(config.hidden_size);
  const std::vector<std::vector<Assignment>> assigned = Route(pool, config, weights, x);
  std::vector<float> out(x.size(), 0.0f);
  std::vector<float> gathered;
  for (size_t e = 0; e < assigned.size(); ++e) {
    if (assigned[e].empty()) continue;
    gathered.resize(assigned[e].size() * width);
    for (size_t i = 0; i < assigned[e].size(); ++i) {
      std::copy_n(x.data() + assigned[e][i].token * width, width, gathered.data() + i * width);
    }
    const std::vector<float> y = DenseForward(pool, weights.experts[e], gathered);
    for (size_t i = 0; i < assigned[e].size(); ++i) {
      kernels::AddScaled({out.data() + assigned[e][i].token * width, width}, assigned[e][i].weight,
                         {y.data() + i * width, width});
    }
  }
  if (weights.shared) kernels::Add(out, DenseForward(pool, *weights.shared, x));
  return out;
}

}  // namespace engram::compute
