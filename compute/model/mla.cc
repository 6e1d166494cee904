#include "compute/model/mla.h"

#include <algorithm>

namespace engram::compute {
namespace {

std::vector<float> Project(kernels::Pool& pool, const kernels::Activations& x, const Matrix& w) {
  std::vector<float> y(static_cast<size_t>(x.count() * w.rows));
  kernels::Linear(pool, x, w, y);
  return y;
}

std::vector<float> Project(kernels::Pool& pool, std::span<const float> x, const Matrix& w) {
  std::vector<float> y(x.size() / static_cast<size_t>(w.columns) * static_cast<size_t>(w.rows));
  kernels::Linear(pool, x, w, y);
  return y;
}

}  // namespace

MlaBlock::MlaBlock(const ModelConfig& config, kernels::Pool& pool, parallel::Collective& ranks)
    : config_(config),
      pool_(pool),
      ranks_(ranks),
      shape_(config.attention),
      frequencies_(kernels::RopeFrequencies(static_cast<int>(config.attention.rope),
                                            config.rope_theta,
                                            config.yarn ? &*config.yarn : nullptr)) {
  shape_.heads = parallel::SliceOf(config.attention.heads, ranks).count;
}

std::vector<float> MlaBlock::Rotations(std::span<const Segment> segments) const {
  const auto rope = static_cast<size_t>(config_.attention.rope);
  std::vector<float> rotations(static_cast<size_t>(TokenCount(segments)) * rope);
  float* to = rotations.data();
  for (const Segment& segment : segments) {
    for (int64_t i = 0; i < segment.count(); ++i, to += rope) {
      kernels::RopeRotation(segment.state->length + i, frequencies_, config_.rope_magnitude,
                            {to, rope});
    }
  }
  return rotations;
}

std::vector<float> MlaBlock::Queries(const AttentionWeights& weights, const kernels::Activations& x,
                                     std::span<const float> rotations) const {
  std::vector<float> q;
  if (weights.q_a) {
    const std::vector<float> low = Project(pool_, x, *weights.q_a);
    kernels::Activations normed;
    kernels::RmsNormRows(pool_, low.data(), config_.q_lora_rank, x.count(), weights.q_a_norm,
                         config_.norm_eps, normed);
    q = Project(pool_, normed, weights.q);
  } else {
    q = Project(pool_, x, weights.q);
  }
  const auto heads = static_cast<size_t>(shape_.heads);
  const auto nope = static_cast<size_t>(config_.attention.nope);
  const auto rope = static_cast<size_t>(config_.attention.rope);
  for (size_t i = 0; i < q.size() / (nope + rope); ++i) {
    const std::span<float> rotated(q.data() + i * (nope + rope) + nope, rope);
    kernels::Rope(rotated, rotations.subspan(i / heads * rope, rope));
  }
  return q;
}

void MlaBlock::FillCache(const AttentionWeights& weights, int64_t layer,
                         const kernels::Activations& x, std::span<const Segment> segments,
                         std::span<const float> rotations, PagePool& pages) const {
  std::vector<float> entries = Project(pool_, x, weights.kv_a);
  const auto latent = static_cast<size_t>(config_.attention.latent);
  const auto rope = static_cast<size_t>(config_.attention.rope);
  const size_t width = latent + rope;
  const auto page_positions = pages.shape().positions;
  size_t t = 0;
  for (const Segment& segment : segments) {
    for (int64_t i = 0; i < segment.count(); ++i, ++t) {
      const int64_t position = segment.state->length + i;
      const std::span<float> entry(entries.data() + t * width, width);
      const std::span<float> normed = entry.first(latent);
      kernels::RmsNorm(normed, weights.kv_a_norm, config_.norm_eps, normed);
      kernels::Rope(entry.last(rope), rotations.subspan(t * rope, rope));
      const int32_t page = segment.state->pages[static_cast<size_t>(position / page_positions)];
      pages.Write(page, layer, position % page_positions, entry);
    }
  }
}

std::vector<float> MlaBlock::Forward(const AttentionWeights& weights, int64_t layer,
                                     std::span<const Segment> segments,
                                     std::span<const float> rotations,
                                     const kernels::Activations& x, PagePool& pages) const {
  std::vector<const void*> entries;  // of all segments' pages
  for (const Segment& segment : segments) {
    for (const int32_t page : segment.state->pages) {
      entries.push_back(pages.Entries(page, layer));
    }
  }
  std::vector<kernels::MlaSegment> attended;
  size_t first_page = 0;
  for (const Segment& segment : segments) {
    attended.push_back({segment.count(), segment.state->length,
                        std::span(entries).subspan(first_page, segment.state->pages.size()),
                        pages.shape().dtype});
    first_page += segment.state->pages.size();
  }
  const std::vector<float> q = Queries(weights, x, rotations);
  FillCache(weights, layer, x, segments, rotations, pages);
  const int64_t tokens = TokenCount(segments);
  std::vector<float> out(static_cast<size_t>(tokens * shape_.heads * shape_.value));
  kernels::MlaAttention(pool_, shape_, pages.shape().positions, attended, q, weights.kv_b, out);
  out = parallel::GatherColumns(ranks_, std::move(out), tokens,
                                config_.attention.heads * shape_.value, shape_.value);
  return parallel::GatherColumns(ranks_, Project(pool_, out, weights.out), tokens,
                                 config_.hidden_size, kShardRows);
}

}  // namespace engram::compute
