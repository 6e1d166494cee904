#include "compute/model/transformer.h"

#include <algorithm>

#include "compute/model/engram_layer.h"
#include "compute/model/moe.h"

namespace engram::compute {

Transformer::Transformer(const ModelConfig& config, const Weights& weights,
                         const table::RowFormat& row_format, kernels::Pool& pool,
                         parallel::Collective& ranks)
    : config_(config),
      weights_(weights),
      row_format_(row_format),
      pool_(pool),
      ranks_(ranks),
      attention_(config, pool, ranks),
      residual_(config, pool) {}

std::vector<float> Transformer::Embed(std::span<const Segment> segments) const {
  const auto width = static_cast<size_t>(config_.hidden_size);
  std::vector<float> x(static_cast<size_t>(TokenCount(segments)) * width);
  float* to = x.data();
  for (const Segment& segment : segments) {
    for (const int32_t token : segment.tokens) {
      kernels::DecodeWeights(weights_.embedding, token, {to, width});
      to += width;
    }
  }
  return x;
}

std::vector<float> Transformer::Forward(std::span<const Segment> segments, LayerRows& rows,
                                        PagePool& pages, ExpertLoad* load) const {
  std::vector<float> x = residual_.Spread(Embed(segments));  // [T, G, D]
  const std::vector<float> rotations = attention_.Rotations(segments);
  Residual::Sublayer sublayer;
  for (int64_t i = 0; i < config_.layer_count; ++i) {
    const LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
    if (const auto engram = config_.EngramIndex(i)) {
      rows.Wait(*engram);
      EngramForward(pool_, ranks_, config_, *layer.engram, row_format_, *engram, segments, rows,
                    pages, x);
    }

    residual_.Enter(layer.attention_hyper, layer.input_norm, x, sublayer);
    residual_.Leave(
        sublayer,
        attention_.Forward(layer.attention, i, segments, rotations, sublayer.input, pages), x);

    residual_.Enter(layer.mlp_hyper, layer.post_attention_norm, x, sublayer);
    const std::span<int64_t> expert_tokens = load ? load->Of(i) : std::span<int64_t>();
    residual_.Leave(
        sublayer,
        layer.dense ? DenseForward(pool_, ranks_, *layer.dense, sublayer.input)
                    : MoeForward(pool_, ranks_, config_, *layer.moe, sublayer.input, expert_tokens),
        x);
  }
  for (const Segment& segment : segments) {
    segment.state->length += segment.count();
    segment.state->fresh = false;
  }
  std::vector<float> hidden = residual_.Sum(x);
  kernels::RmsNorm(hidden, weights_.norm, config_.norm_eps, hidden);
  return hidden;
}

void Transformer::Logits(std::span<const float> hidden, std::span<float> logits) const {
  if (ranks_.size() == 1) return kernels::Linear(pool_, hidden, weights_.lm_head, logits);
  const int64_t tokens = static_cast<int64_t>(hidden.size()) / config_.hidden_size;
  std::vector<float> mine(static_cast<size_t>(tokens * weights_.lm_head.rows));
  kernels::Linear(pool_, hidden, weights_.lm_head, mine);
  const std::vector<float> all =
      parallel::GatherColumns(ranks_, std::move(mine), tokens, config_.vocab_size, kShardRows);
  std::copy(all.begin(), all.end(), logits.begin());
}

}  // namespace engram::compute
