#include "compute/model/residual.h"

#include <algorithm>

#include "kernels/exp.h"

namespace engram::compute {
namespace {

// Tokens below which sharing the streams' work costs more than it saves: 3 us each.
constexpr int64_t kTokenGrain = 4;

}  // namespace

std::vector<float> Residual::Spread(std::span<const float> x) const {
  std::vector<float> all(x.size() * streams());
  for (size_t i = 0; i < x.size() / hidden() * streams(); ++i) {
    std::copy_n(x.data() + i / streams() * hidden(), hidden(), all.data() + i * hidden());
  }
  return all;
}

kernels::HyperMix Residual::MixOf(Sublayer& sublayer, size_t token) const {
  const size_t g = streams();
  return {{sublayer.pre.data() + token * g, g},
          {sublayer.post.data() + token * g, g},
          {sublayer.residual.data() + token * g * g, g * g}};
}

// Of tokens [first, first + count): sigmoid(alpha phi z + bias), and so on, z the normed streams.
void Residual::FindMixes(const HyperWeights& weights, std::span<const float> x, size_t first,
                         size_t count, Sublayer& sublayer) const {
  const size_t g = streams();
  const size_t outputs = g * (g + 2);
  static thread_local std::vector<float> projected;
  projected.resize(count * outputs);
  const auto width = static_cast<int64_t>(g * hidden());
  kernels::NormedLinearRows({x.data() + first * g * hidden(), static_cast<int64_t>(count), width},
                            weights.norm, config_.norm_eps, weights.phi, projected.data(),
                            static_cast<int64_t>(outputs));
  for (size_t t = 0; t < count; ++t) {
    const float* const of_token = projected.data() + t * outputs;
    const kernels::HyperMix mix = MixOf(sublayer, first + t);
    for (size_t i = 0; i < g; ++i) {
      mix.pre[i] = kernels::Sigmoid(weights.alpha_pre * of_token[i] + weights.bias_pre[i]);
      mix.post[i] =
          2.0f * kernels::Sigmoid(weights.alpha_post * of_token[g + i] + weights.bias_post[i]);
    }
    for (size_t i = 0; i < g * g; ++i) {
      mix.residual[i] = weights.alpha_residual * of_token[2 * g + i] + weights.bias_residual[i];
    }
    kernels::SinkhornExp(mix.residual, config_.streams, config_.sinkhorn_rounds);
  }
}

void Residual::Enter(const HyperWeights& weights, std::span<const float> norm,
                     std::span<const float> x, Sublayer& sublayer) const {
  const size_t tokens = TokenCount(x), g = streams();
  const auto count = static_cast<int64_t>(tokens);
  if (config_.streams == 1) {
    return kernels::RmsNormRows(pool_, x.data(), config_.hidden_size, count, norm, config_.norm_eps,
                                sublayer.input);
  }
  kernels::Prefetch(weights.phi);
  sublayer.pre.resize(tokens * g);
  sublayer.post.resize(tokens * g);
  sublayer.residual.resize(tokens * g * g);
  sublayer.input.Resize(count, config_.hidden_size);
  pool_.Run(count, kTokenGrain, [&](int64_t begin, int64_t end) {
    FindMixes(weights, x, static_cast<size_t>(begin), static_cast<size_t>(end - begin), sublayer);
    for (int64_t t = begin; t < end; ++t) {
      const auto token = static_cast<size_t>(t);
      const std::span<float> u = sublayer.input.row(t);
      kernels::HyperCollapse(MixOf(sublayer, token), x.subspan(token * g * hidden(), g * hidden()),
                             u);
      kernels::RmsNorm(u, norm, config_.norm_eps, u);
      sublayer.input.RowIsComplete(t);
    }
  });
}

void Residual::Leave(Sublayer& sublayer, std::span<const float> y, std::span<float> x) const {
  if (config_.streams == 1) return kernels::Add(x, y);
  const size_t g = streams();
  pool_.Run(static_cast<int64_t>(TokenCount(x)), kTokenGrain, [&](int64_t begin, int64_t end) {
    for (auto t = static_cast<size_t>(begin); t < static_cast<size_t>(end); ++t) {
      kernels::HyperExpand(MixOf(sublayer, t), y.subspan(t * hidden(), hidden()),
                           x.subspan(t * g * hidden(), g * hidden()));
    }
  });
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
