// Which part of the weights a rank keeps. What every rank needs whole stays: the embedding, norms,
// routing, hyper-connections, low-rank and latent projections, shared experts, dense layers and
// Engram layers.
#include <fmt/format.h>

#include "compute/model/weights.h"

namespace engram::compute {

Status ShardWeights(const ModelConfig& config, const parallel::Collective& ranks,
                    Weights& weights) {
  const kernels::MlaShape& mla = config.attention;
  if (ranks.size() > mla.heads) {
    return InvalidArgument(fmt::format(
        "{} ranks for a model of {} attention heads: at most one a head", ranks.size(), mla.heads));
  }
  const parallel::Slice heads = SliceOf(mla.heads, ranks);
  const auto rows_of_heads = [&](const Matrix& w, int64_t width) {
    return w.Rows(heads.first * width, heads.count * width);
  };
  const auto rows = [&](const Matrix& w) {
    const parallel::Slice slice = SliceOf(w.rows, ranks);
    return w.Rows(slice.first, slice.count);
  };
  for (LayerWeights& layer : weights.layers) {
    AttentionWeights& attention = layer.attention;
    attention.q = rows_of_heads(attention.q, mla.nope + mla.rope);
    attention.kv_b = rows_of_heads(attention.kv_b, mla.nope + mla.value);
    attention.out = rows(attention.out);
    if (!layer.moe) continue;
    std::vector<MlpWeights>& experts = layer.moe->experts;
    const parallel::Slice own = SliceOf(static_cast<int64_t>(experts.size()), ranks);
    for (size_t e = 0; e < experts.size(); ++e) {
      const auto expert = static_cast<int64_t>(e);
      if (expert < own.first || expert >= own.end()) experts[e] = MlpWeights();
    }
  }
  weights.lm_head = rows(weights.lm_head);
  return OkStatus();
}

}  // namespace engram::compute
