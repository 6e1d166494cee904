// Multi-head latent attention. The absorbed form is what the engine runs, for prefill and decode
// alike, so that a result never depends on how a prompt was cut; the per-head form is its
// independent check.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"

namespace engram::kernels {
namespace {

void CheckShapes(const MlaShape& s, std::span<const float> q, const Matrix& kv_b,
                 std::span<const float> cache, int64_t first_position, std::span<float> out) {
  const int64_t tokens = static_cast<int64_t>(q.size()) / (s.heads * (s.nope + s.rope));
  CHECK_EQ(static_cast<int64_t>(q.size()), tokens * s.heads * (s.nope + s.rope));
  CHECK_EQ(static_cast<int64_t>(out.size()), tokens * s.heads * s.value);
  CHECK_EQ(static_cast<int64_t>(cache.size()), (first_position + tokens) * (s.latent + s.rope));
  CHECK(kv_b.rows == s.heads * (s.nope + s.value) && kv_b.columns == s.latent);
}

}  // namespace

void MlaAttention(Pool& pool, const MlaShape& s, std::span<const float> q, const Matrix& kv_b,
                  std::span<const float> cache, int64_t first_position, std::span<float> out) {
  CheckShapes(s, q, kv_b, cache, first_position, out);
  const int64_t entry = s.latent + s.rope;  // width of a cache row
  const int64_t q_width = s.nope + s.rope;
  const int64_t tokens = static_cast<int64_t>(q.size()) / (s.heads * q_width);
  std::vector<float> q_latent(
      static_cast<size_t>(tokens * s.heads * entry));  // [tokens, heads, entry]
  std::vector<float> sums(
      static_cast<size_t>(tokens * s.heads * s.latent));  // [tokens, heads, latent]

  // q_latent = [W_uk^T q_nope | q_rope]: a query that meets cache rows directly.
  pool.Run(s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      const float* from = q.data() + h * q_width;
      float* to = q_latent.data() + h * entry;
      TransposedRows({from, tokens, s.heads * q_width}, kv_b.Rows(h * (s.nope + s.value), s.nope),
                     to, s.heads * entry);
      for (int64_t t = 0; t < tokens; ++t) {
        std::copy_n(from + t * s.heads * q_width + s.nope, s.rope,
                    to + t * s.heads * entry + s.latent);
      }
    }
  });

  // Item i is (token, head) = (i / heads, i % heads); the heads of one token share every load of
  // the cache.
  pool.Run(tokens * s.heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores;
    for (int64_t i = begin; i < end;) {
      const int64_t t = i / s.heads;
      const int64_t count = std::min(end, (t + 1) * s.heads) - i;
      const int64_t positions = first_position + t + 1;
      const Matrix keys =
          MatrixOf(cache.first(static_cast<size_t>(positions * entry)), positions, entry);
      Matrix latents = keys;
      latents.columns = s.latent;
      scores.resize(static_cast<size_t>(count * positions));
      LinearRows({q_latent.data() + i * entry, count, entry}, keys, scores.data(), positions);
      for (int64_t h = 0; h < count; ++h) {
        Softmax({scores.data() + h * positions, static_cast<size_t>(positions)}, s.scale);
      }
      TransposedRows({scores.data(), count, positions}, latents, sums.data() + i * s.latent,
                     s.latent);
      i += count;
    }
  });

  pool.Run(s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      LinearRows({sums.data() + h * s.latent, tokens, s.heads * s.latent},
                 kv_b.Rows(h * (s.nope + s.value) + s.nope, s.value), out.data() + h * s.value,
                 s.heads * s.value);
    }
  });
}

void MlaAttention(Pool& pool, const MlaShape& s, int64_t page_positions,
                  std::span<const MlaSegment> segments, std::span<const float> q,
                  const Matrix& kv_b, std::span<float> out) {
  const int64_t entry = s.latent + s.rope;
  const int64_t q_width = s.heads * (s.nope + s.rope);
  const int64_t out_width = s.heads * s.value;
  std::vector<float> cache;
  int64_t token = 0;
  for (const MlaSegment& segment : segments) {
    const int64_t positions = segment.first_position + segment.tokens;
    cache.resize(static_cast<size_t>(positions * entry));
    for (int64_t at = 0; at < positions; at += page_positions) {
      const int64_t count = std::min(page_positions, positions - at);
      std::copy_n(segment.pages[static_cast<size_t>(at / page_positions)], count * entry,
                  cache.data() + at * entry);
    }
    const auto slice = [&](auto all, int64_t width) {
      return all.subspan(static_cast<size_t>(token * width),
                         static_cast<size_t>(segment.tokens * width));
    };
    MlaAttention(pool, s, slice(q, q_width), kv_b, cache, segment.first_position,
                 slice(out, out_width));
    token += segment.tokens;
  }
}

namespace ref {

void MlaAttention(const MlaShape& s, std::span<const float> q, const Matrix& kv_b,
                  std::span<const float> cache, int64_t first_position, std::span<float> out) {
  CheckShapes(s, q, kv_b, cache, first_position, out);
  const int64_t entry = s.latent + s.rope;
  const int64_t width = s.nope + s.value;
  const int64_t positions = static_cast<int64_t>(cache.size()) / entry;
  std::vector<float> key_values(
      static_cast<size_t>(positions * s.heads * width));  // [positions, heads, nope | v]
  ref::LinearRows({cache.data(), positions, entry}, kv_b, key_values.data(), s.heads * width);
  std::fill(out.begin(), out.end(), 0.0f);
  for (int64_t t = first_position; t < positions; ++t) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t item = (t - first_position) * s.heads + h;
      const float* query = q.data() + item * (s.nope + s.rope);
      std::vector<float> scores(static_cast<size_t>(t + 1));
      for (int64_t j = 0; j <= t; ++j) {
        scores[static_cast<size_t>(j)] =
            Dot(query, key_values.data() + (j * s.heads + h) * width, s.nope) +
            Dot(query + s.nope, cache.data() + j * entry + s.latent, s.rope);
      }
      Softmax(scores, s.scale);
      const std::span<float> sum(out.data() + item * s.value, static_cast<size_t>(s.value));
      for (int64_t j = 0; j <= t; ++j) {
        AddScaled(sum, scores[static_cast<size_t>(j)],
                  {key_values.data() + (j * s.heads + h) * width + s.nope, sum.size()});
      }
    }
  }
}

}  // namespace ref
}  // namespace engram::kernels
