#include "compute/model/transformer.h"

#include <fmt/format.h>

#include "compute/model/engram_layer.h"
#include "compute/model/moe.h"

namespace engram::compute {

Transformer::Transformer(const ModelConfig& config, const Weights& weights,
                         const table::RowFormat& row_format, kernels::Pool& pool)
    : config_(config),
      weights_(weights),
      row_format_(row_format),
      pool_(pool),
      attention_(config, pool),
      residual_(config, pool) {}

std::vector<float> Transformer::Embed(std::span<const int32_t> tokens) const {
  const auto width = static_cast<size_t>(config_.hidden_size);
  std::vector<float> x(tokens.size() * width);
  for (size_t t = 0; t < tokens.size(); ++t) {
    kernels::DecodeWeights(weights_.embedding, tokens[t], {x.data() + t * width, width});
  }
  return x;
}

Result<std::vector<float>> Transformer::Forward(std::span<const int32_t> tokens,
                                                SequenceState& sequence, Fetch& fetch) const {
  std::vector<float> x = residual_.Spread(Embed(tokens));  // [T, G, D]
  for (int64_t i = 0; i < config_.layer_count; ++i) {
    const LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
    if (const auto engram = config_.EngramIndex(i)) {
      ASSIGN_OR_RETURN(const std::span<const std::byte> rows, fetch.Rows(*engram));
      EngramForward(pool_, config_, *layer.engram, row_format_, rows,
                    sequence.conv_history[*engram], x);
    }

    Residual::Mix mix = residual_.MixOf(layer.attention_hyper, x);
    std::vector<float> u = residual_.Collapse(mix, x);
    kernels::RmsNorm(u, layer.input_norm, config_.norm_eps, u);
    residual_.Expand(mix, attention_.Forward(layer.attention, i, u, sequence), x);

    mix = residual_.MixOf(layer.mlp_hyper, x);
    u = residual_.Collapse(mix, x);
    kernels::RmsNorm(u, layer.post_attention_norm, config_.norm_eps, u);
    residual_.Expand(mix,
                     layer.dense ? DenseForward(pool_, *layer.dense, u)
                                 : MoeForward(pool_, config_, *layer.moe, u),
                     x);
  }
  sequence.length += static_cast<int64_t>(tokens.size());
  std::vector<float> hidden = residual_.Sum(x);
  kernels::RmsNorm(hidden, weights_.norm, config_.norm_eps, hidden);
  return hidden;
}

Status Transformer::Logits(std::span<const float> hidden, std::span<float> logits) const {
  kernels::Linear(pool_, hidden, weights_.lm_head, logits);
  if (kernels::AllFinite(logits)) return OkStatus();
  return InternalError(
      "a logit is not a finite number: the weights or the Engram rows hold NaN or infinity");
}

}  // namespace engram::compute
