#include "compute/model/mla.h"

namespace engram::compute {
namespace {

std::vector<float> Project(kernels::Pool& pool, std::span<const float> x, const Matrix& w) {
  std::vector<float> y(x.size() / static_cast<size_t>(w.columns) * static_cast<size_t>(w.rows));
  kernels::Linear(pool, x, w, y);
  return y;
}

}  // namespace

MlaBlock::MlaBlock(const ModelConfig& config, kernels::Pool& pool)
    : config_(config),
      pool_(pool),
      frequencies_(kernels::RopeFrequencies(static_cast<int>(config.attention.rope),
                                            config.rope_theta,
                                            config.yarn ? &*config.yarn : nullptr)) {}

std::vector<float> MlaBlock::Queries(const AttentionWeights& weights, std::span<const float> x,
                                     int64_t first) const {
  std::vector<float> q;
  if (weights.q_a) {
    std::vector<float> low = Project(pool_, x, *weights.q_a);
    kernels::RmsNorm(low, weights.q_a_norm, config_.norm_eps, low);
    q = Project(pool_, low, weights.q);
  } else {
    q = Project(pool_, x, weights.q);
  }
  const auto heads = static_cast<size_t>(config_.attention.heads);
  const auto nope = static_cast<size_t>(config_.attention.nope);
  const auto rope = static_cast<size_t>(config_.attention.rope);
  for (size_t i = 0; i < q.size() / (nope + rope); ++i) {
    const std::span<float> rotated(q.data() + i * (nope + rope) + nope, rope);
    kernels::Rope(rotated, first + static_cast<int64_t>(i / heads), frequencies_,
                  config_.rope_magnitude);
  }
  return q;
}

void MlaBlock::FillCache(const AttentionWeights& weights, std::span<const float> x, int64_t first,
                         std::span<float> entries) const {
  kernels::Linear(pool_, x, weights.kv_a, entries);
  const auto latent = static_cast<size_t>(config_.attention.latent);
  const auto rope = static_cast<size_t>(config_.attention.rope);
  for (size_t t = 0; t < entries.size() / (latent + rope); ++t) {
    const std::span<float> entry = entries.subspan(t * (latent + rope), latent + rope);
    kernels::RmsNorm(entry.first(latent), weights.kv_a_norm, config_.norm_eps, entry.first(latent));
    kernels::Rope(entry.last(rope), first + static_cast<int64_t>(t), frequencies_,
                  config_.rope_magnitude);
  }
}

std::vector<float> MlaBlock::Forward(const AttentionWeights& weights, int64_t layer,
                                     std::span<const float> x, SequenceState& sequence) const {
  const int64_t first = sequence.length;
  const int64_t tokens = static_cast<int64_t>(x.size()) / config_.hidden_size;
  const std::vector<float> q = Queries(weights, x, first);
  FillCache(weights, x, first, sequence.cache.Entries(layer, first, tokens));
  std::vector<float> attended(
      static_cast<size_t>(tokens * config_.attention.heads * config_.attention.value));
  kernels::MlaAttention(pool_, config_.attention, q, weights.kv_b,
                        sequence.cache.Entries(layer, 0, first + tokens), first, attended);
  return Project(pool_, attended, weights.out);
}

}  // namespace engram::compute
