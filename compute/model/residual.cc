#include "compute/model/residual.h"

#include <algorithm>

#include "kernels/exp.h"

namespace engram::compute {
namespace {

// Tokens below which sharing the streams' work costs more than it saves: 3 us each.
constexpr int64_t kTokenGrain = 4;

}  // namespace

int64_t HyperConnections::FloatsOf(const ModelConfig& config, int64_t tokens, int64_t threads) {
  const int64_t g = config.streams, width = config.hidden_size;
  return tokens * (3 * width + 2 * g * (g + 2) + 64) + threads * kernels::kNormedTokens * g * width;
}

HyperConnections::Sublayer::Sublayer(const ModelContext& context, int64_t tokens)
    : input(context.memory(), tokens, context.config.hidden_size),
      output(context.memory().Take<float>(tokens * context.config.hidden_size)) {
  const int64_t g = context.config.streams;
  if (g == 1) return;
  pre = context.memory().Take<float>(tokens * g);
  post = context.memory().Take<float>(tokens * g);
  residual = context.memory().Take<float>(tokens * g * g);
}

kernels::HyperMix HyperConnections::Sublayer::MixOf(int64_t token) const {
  const int64_t g = std::ssize(pre) / input.count();
  return {pre.subspan(token * g, g), post.subspan(token * g, g),
          residual.subspan(token * g * g, g * g)};
}

// One token's mix, sigmoid(alpha phi z + bias) and so on, of what phi makes of its normed streams
// z; their sum by it, normed.
void HyperConnections::EnterToken(std::span<const float> streams, std::span<const float> projected,
                                  int64_t token, Sublayer& sublayer) const {
  const HyperWeights& w = weights_;
  const kernels::HyperMix mix = sublayer.MixOf(token);
  const int64_t g = std::ssize(mix.pre);
  for (int64_t i = 0; i < g; ++i) {
    mix.pre[i] = kernels::Sigmoid(w.alpha_pre * projected[i] + w.bias_pre[i]);
    mix.post[i] = 2.0f * kernels::Sigmoid(w.alpha_post * projected[g + i] + w.bias_post[i]);
  }
  for (int64_t i = 0; i < g * g; ++i) {
    mix.residual[i] = w.alpha_residual * projected[2 * g + i] + w.bias_residual[i];
  }
  kernels::SinkhornExp(mix.residual, g, context_.config.sinkhorn_rounds);
  const std::span<float> u = sublayer.input.row(token);
  kernels::HyperCollapse(mix, streams, u);
  kernels::RmsNorm(u, norm_, context_.config.norm_eps, u);
  sublayer.input.RowIsComplete(token);
}

void HyperConnections::Enter(std::span<const float> streams, Sublayer& sublayer) const {
  const ModelConfig& config = context_.config;
  kernels::Pool& pool = context_.pool;
  const int64_t g = config.streams;
  if (g == 1) {
    return kernels::RmsNormRows(pool, streams.data(), config.hidden_size, norm_, config.norm_eps,
                                sublayer.input);
  }
  kernels::Workspace& memory = context_.memory();
  const kernels::Workspace::Scope scope(memory);
  const int64_t tokens = sublayer.input.count(), width = g * config.hidden_size;
  const int64_t outputs = g * (g + 2), scratch_floats = kernels::kNormedTokens * width;
  const std::span<float> projected = memory.Take<float>(tokens * outputs);
  const std::span<float> scratch = memory.Take<float>(pool.threads() * scratch_floats);
  kernels::Prefetch(weights_.phi);
  pool.Run(tokens, kTokenGrain, [&](int64_t begin, int64_t end, int64_t share) {
    // A token's streams are read from memory once.
    kernels::NormedLinearRows({streams.data() + begin * width, end - begin, width}, weights_.norm,
                              config.norm_eps, weights_.phi, projected.data() + begin * outputs,
                              outputs, scratch.subspan(share * scratch_floats, scratch_floats));
    for (int64_t t = begin; t < end; ++t) {
      EnterToken(streams.subspan(t * width, width), projected.subspan(t * outputs, outputs), t,
                 sublayer);
    }
  });
}

void HyperConnections::Leave(const Sublayer& sublayer, std::span<float> streams) const {
  if (context_.config.streams == 1) return kernels::Add(streams, sublayer.output);
  const int64_t width = context_.config.hidden_size, all = width * context_.config.streams;
  context_.pool.Run(sublayer.input.count(), kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      kernels::HyperExpand(sublayer.MixOf(t), sublayer.output.subspan(t * width, width),
                           streams.subspan(t * all, all));
    }
  });
}

void SpreadStreams(std::span<const float> x, int64_t count, int64_t width,
                   std::span<float> streams) {
  for (int64_t i = 0; i < std::ssize(streams) / width; ++i) {
    std::copy_n(x.data() + i / count * width, width, streams.data() + i * width);
  }
}

void SumStreams(std::span<const float> streams, int64_t count, int64_t width,
                std::span<float> sum) {
  std::fill(sum.begin(), sum.end(), 0.0f);
  for (int64_t i = 0; i < std::ssize(streams) / width; ++i) {
    kernels::Add(sum.subspan(i / count * width, width), streams.subspan(i * width, width));
  }
}

}  // namespace engram::compute
