// Multi-head latent attention per head, unabsorbed: the independent check of cpu/attention.cc.
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
