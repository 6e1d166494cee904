#include "compute/model/residual.h"

#include <algorithm>

#include "kernels/exp.h"

namespace engram::compute {
namespace {

// [T, rows of phi]: alpha * phi z + bias.
std::vector<float> Affine(kernels::Pool& pool, std::span<const float> z, const Matrix& phi,
                          float alpha, std::span<const float> bias) {
  std::vector<float> y(z.size() / static_cast<size_t>(phi.columns) * static_cast<size_t>(phi.rows));
  kernels::Linear(pool, z, phi, y);
  for (float& value : y) value *= alpha;
  kernels::AddBias(y, bias);
  return y;
}

}  // namespace

std::vector<float> Residual::Spread(std::span<const float> x) const {
  std::vector<float> all(x.size() * streams());
  for (size_t i = 0; i < x.size() / hidden() * streams(); ++i) {
    std::copy_n(x.data() + i / streams() * hidden(), hidden(), all.data() + i * hidden());
  }
  return all;
}

Residual::Mix Residual::MixOf(const HyperWeights& weights, std::span<const float> streams) const {
  if (config_.streams == 1) return {};
  for (const Matrix* phi : {&weights.pre, &weights.post, &weights.residual}) {
    kernels::Prefetch(*phi);
  }
  std::vector<float> z(streams.size());
  kernels::RmsNorm(streams, weights.norm, config_.norm_eps, z);
  Mix mix{Affine(pool_, z, weights.pre, weights.alpha_pre, weights.bias_pre),
          Affine(pool_, z, weights.post, weights.alpha_post, weights.bias_post),
          Affine(pool_, z, weights.residual, weights.alpha_residual, weights.bias_residual)};
  for (float& value : mix.pre) value = kernels::Sigmoid(value);
  for (float& value : mix.post) value = 2.0f * kernels::Sigmoid(value);
  for (size_t t = 0; t < TokenCount(streams); ++t) {
    kernels::SinkhornExp(TokenMix(mix, t).residual, config_.streams, config_.sinkhorn_rounds);
  }
  return mix;
}

kernels::HyperMix Residual::TokenMix(Mix& mix, size_t token) const {
  const size_t g = streams();
  return {{mix.pre.data() + token * g, g},
          {mix.post.data() + token * g, g},
          {mix.residual.data() + token * g * g, g * g}};
}

std::vector<float> Residual::Collapse(Mix& mix, std::span<const float> x) const {
  if (config_.streams == 1) return {x.begin(), x.end()};
  std::vector<float> u(x.size() / streams());
  for (size_t t = 0; t < TokenCount(x); ++t) {
    kernels::HyperCollapse(TokenMix(mix, t),
                           x.subspan(t * streams() * hidden(), streams() * hidden()),
                           {u.data() + t * hidden(), hidden()});
  }
  return u;
}

void Residual::Expand(Mix& mix, std::span<const float> y, std::span<float> x) const {
  if (config_.streams == 1) return kernels::Add(x, y);
  for (size_t t = 0; t < TokenCount(x); ++t) {
    kernels::HyperExpand(TokenMix(mix, t), y.subspan(t * hidden(), hidden()),
                         x.subspan(t * streams() * hidden(), streams() * hidden()));
  }
}

std::vector<float> Residual::Sum(std::span<const float> x) const {
  std::vector<float> sum(x.size() / streams(), 0.0f);
  for (size_t i = 0; i < x.size() / hidden(); ++i) {
    kernels::Add({sum.data() + i / streams() * hidden(), hidden()},
                 x.subspan(i * hidden(), hidden()));
  }
  return sum;
}

}  // namespace engram::compute
