#include "compute/model/transformer.h"

#include <algorithm>

namespace engram::compute {

using kernels::Workspace;

Transformer::Transformer(const ModelConfig& config, const Weights& weights,
                         const table::RowFormat& row_format, kernels::Pool& pool,
                         int64_t tokens_max, parallel::Collective& ranks)
    : context_{config, pool, ranks},
      weights_(weights),
      frequencies_(kernels::RopeFrequencies(static_cast<int>(config.attention.rope),
                                            config.rope_theta,
                                            config.yarn ? &*config.yarn : nullptr)),
      hidden_(pool.memory().Take<float>(tokens_max * config.hidden_size)) {
  for (int64_t i = 0; i < config.layer_count; ++i) {
    const LayerWeights& w = weights.layers[i];
    const MlpWeights* const every = w.dense ? &*w.dense : w.moe->shared ? &*w.moe->shared : nullptr;
    const Matrix* next = &weights.lm_head;
    if (i + 1 < config.layer_count) {
      const AttentionWeights& attention = weights.layers[i + 1].attention;
      next = attention.q_a ? &*attention.q_a : &attention.q;
    }
    Layer& layer = layers_.emplace_back(
        Layer{{},
              {context_, w.attention_hyper, w.input_norm},
              {context_, w.attention, i, every == nullptr ? nullptr : every->gate_up},
              {context_, w.mlp_hyper, w.post_attention_norm},
              {},
              {}});
    const auto engram = config.EngramIndex(i);
    if (engram) layer.engram.emplace(context_, *w.engram, row_format, *engram);
    if (w.dense) {
      layer.dense.emplace(context_, *w.dense, next);
    } else {
      layer.moe.emplace(context_, *w.moe, i, next);
    }
  }
}

int64_t Transformer::WorkspaceBytes(const ModelConfig& config, int64_t tokens_max,
                                    int64_t threads) {
  const int64_t width = config.hidden_size;
  const bool has_engram = !config.engram.layer_ids.empty();
  const int64_t block = std::max({MlaBlock::FloatsOf(config, tokens_max, threads),
                                  FeedForwardFloatsOf(config, tokens_max, threads),
                                  has_engram ? EngramLayer::FloatsOf(config, tokens_max) : 0,
                                  // Logits, which the ranks gather
                                  tokens_max * (width + 64) + 2 * kLogitRows * config.vocab_size});
  const int64_t floats = tokens_max * ((config.streams + 1) * width + config.attention.rope) +
                         HyperConnections::FloatsOf(config, tokens_max, threads) + block;
  return floats * int64_t{sizeof(float)};
}

void Transformer::Embed(std::span<const Segment> segments, std::span<float> x) const {
  const int64_t width = context_.config.hidden_size;
  for (const Segment& segment : segments) {
    for (const int32_t token : segment.tokens) {
      kernels::DecodeWeights(weights_.embedding, token, x.first(width));
      x = x.subspan(width);
    }
  }
}

void Transformer::Rotate(std::span<const Segment> segments, std::span<float> rotations) const {
  const ModelConfig& config = context_.config;
  for (const Segment& segment : segments) {
    for (int64_t i = 0; i < segment.count(); ++i) {
      kernels::RopeRotation(segment.state->length + i, frequencies_, config.rope_magnitude,
                            rotations.first(config.attention.rope));
      rotations = rotations.subspan(config.attention.rope);
    }
  }
}

std::span<const float> Transformer::Forward(std::span<const Segment> segments, LayerRows& rows,
                                            PagePool& pages, ExpertLoad* load) const {
  const ModelConfig& config = context_.config;
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const int64_t tokens = TokenCount(segments), width = config.hidden_size;
  CHECK_LE(tokens * width, std::ssize(hidden_)) << tokens << " tokens in one step";
  const std::span<float> hidden = hidden_.first(tokens * width);
  const std::span<float> x = memory.Take<float>(tokens * config.streams * width);  // [T, G, D]
  const std::span<float> rotations = memory.Take<float>(tokens * config.attention.rope);
  Embed(segments, hidden);
  SpreadStreams(hidden, config.streams, width, x);
  Rotate(segments, rotations);

  const StepContext step{segments, tokens, rotations, pages, rows, load};
  for (const Layer& layer : layers_) {
    if (layer.engram) layer.engram->Forward(x, step);
    layer.attention_residual.Forward(x, step, layer.attention);
    if (layer.dense) {
      layer.mlp_residual.Forward(x, step, *layer.dense);
    } else {
      layer.mlp_residual.Forward(x, step, *layer.moe);
    }
  }

  for (const Segment& segment : segments) {
    segment.state->length += segment.count();
    segment.state->fresh = false;
  }
  SumStreams(x, config.streams, width, hidden);
  kernels::RmsNorm(hidden, weights_.norm, config.norm_eps, hidden);
  return hidden;
}

void Transformer::Logits(std::span<const float> hidden, std::span<float> logits) const {
  GatheredLinear(context_, hidden, weights_.lm_head, context_.config.vocab_size, logits);
}

}  // namespace engram::compute
