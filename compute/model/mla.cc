#include "compute/model/mla.h"

#include <array>

namespace engram::compute {

using kernels::Activations;
using kernels::Workspace;

MlaBlock::MlaBlock(const ModelContext& context, const AttentionWeights& weights, int64_t layer,
                   const kernels::PackedMatrix* next)
    : context_(context),
      weights_(weights),
      layer_(layer),
      next_(next),
      shape_(context.config.attention) {
  shape_.heads = parallel::SliceOf(shape_.heads, context.ranks).count;
}

int64_t MlaBlock::FloatsOf(const ModelConfig& config, int64_t tokens, int64_t threads) {
  const kernels::MlaShape& shape = config.attention;
  return tokens * (2 * config.q_lora_rank + shape.heads * (shape.nope + shape.rope) +
                   4 * shape.heads * shape.value + 2 * config.hidden_size + 64) +
         kernels::MlaFloatsOf(shape, tokens, threads);
}

// q [T, heads, nope + rope], rotated, and the cache's entries [T, latent + rope], neither normed
// nor rotated.
void MlaBlock::Project(const Activations& x, const StepContext& step, std::span<float> q,
                       std::span<float> entries) const {
  kernels::Pool& pool = context_.pool;
  const kernels::Product kv{&weights_.kv_a, entries.data(), weights_.kv_a.rows};
  if (weights_.q_a) {
    Workspace& memory = context_.memory();
    const Workspace::Scope scope(memory);
    const int64_t rank = context_.config.q_lora_rank;
    const std::span<float> low = memory.Take<float>(step.tokens * rank);
    Activations normed(memory, step.tokens, rank);
    kernels::Expect(pool, weights_.q);
    kernels::LinearAll(pool, x, std::array{kernels::Product{&*weights_.q_a, low.data(), rank}, kv});
    kernels::RmsNormRows(pool, low.data(), rank, weights_.q_a_norm, context_.config.norm_eps,
                         normed);
    kernels::Expect(pool, weights_.kv_b);
    kernels::Linear(pool, normed, weights_.q, q);
  } else {
    kernels::Expect(pool, weights_.kv_b);
    kernels::LinearAll(pool, x,
                       std::array{kernels::Product{&weights_.q, q.data(), weights_.q.rows}, kv});
  }
  const int64_t width = shape_.nope + shape_.rope;
  for (int64_t i = 0; i < step.tokens * shape_.heads; ++i) {
    kernels::Rope(q.subspan(i * width + shape_.nope, shape_.rope),
                  step.rotations.subspan(i / shape_.heads * shape_.rope, shape_.rope));
  }
}

void MlaBlock::FillCache(const StepContext& step, std::span<float> entries) const {
  const int64_t width = shape_.latent + shape_.rope;
  const int64_t page_positions = step.pages.shape().positions;
  int64_t t = 0;
  for (const Segment& segment : step.segments) {
    for (int64_t i = 0; i < segment.count(); ++i, ++t) {
      const int64_t position = segment.state->length + i;
      const std::span<float> entry = entries.subspan(t * width, width);
      const std::span<float> latent = entry.first(shape_.latent);
      kernels::RmsNorm(latent, weights_.kv_a_norm, context_.config.norm_eps, latent);
      kernels::Rope(entry.last(shape_.rope), step.rotations.subspan(t * shape_.rope, shape_.rope));
      const int32_t page = segment.state->pages[position / page_positions];
      step.pages.Write(page, layer_, position % page_positions, entry);
    }
  }
}

void MlaBlock::Forward(const Activations& x, const StepContext& step, std::span<float> y) const {
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const std::span<float> q =
      memory.Take<float>(step.tokens * shape_.heads * (shape_.nope + shape_.rope));
  {
    const Workspace::Scope of_entries(memory);
    const std::span<float> entries =
        memory.Take<float>(step.tokens * (shape_.latent + shape_.rope));
    Project(x, step, q, entries);
    FillCache(step, entries);
  }
  const std::span segments = memory.Take<kernels::MlaSegment>(std::ssize(step.segments));
  for (int64_t i = 0; i < std::ssize(segments); ++i) {
    const SequenceState& state = *step.segments[i].state;
    segments[i] = {step.segments[i].count(), state.length, state.pages};
  }
  const int64_t all_heads = context_.config.attention.heads;
  const std::span<float> out = memory.Take<float>(step.tokens * shape_.heads * shape_.value);
  kernels::Expect(context_.pool, weights_.out);
  kernels::MlaAttention(context_.pool, shape_, step.pages.Layer(layer_), segments, q, weights_.kv_b,
                        out);
  std::span<float> gathered = out;
  if (shape_.heads < all_heads) {
    gathered = memory.Take<float>(step.tokens * all_heads * shape_.value);
    parallel::GatherColumns(context_.ranks, memory, out, step.tokens, shape_.value, gathered);
  }
  if (next_ != nullptr) kernels::Expect(context_.pool, *next_);
  GatheredLinear(context_, std::span<const float>(gathered), weights_.out,
                 context_.config.hidden_size, y);
}

}  // namespace engram::compute
