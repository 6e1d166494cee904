// Hyper-connections of one token: the doubly stochastic mix, collapse to one stream, expansion to
// all.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "common/base/check.h"
#include "kernels/exp.h"
#include "kernels/ops.h"

namespace engram::kernels {

namespace {

// Four floats with the operators of one.
typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));

void Transpose(Float4 (&m)[4]) {
  const Float4 a = __builtin_shuffle(m[0], m[1], Int4{0, 4, 1, 5});
  const Float4 b = __builtin_shuffle(m[2], m[3], Int4{0, 4, 1, 5});
  const Float4 c = __builtin_shuffle(m[0], m[1], Int4{2, 6, 3, 7});
  const Float4 d = __builtin_shuffle(m[2], m[3], Int4{2, 6, 3, 7});
  m[0] = __builtin_shuffle(a, b, Int4{0, 1, 4, 5});
  m[1] = __builtin_shuffle(a, b, Int4{2, 3, 6, 7});
  m[2] = __builtin_shuffle(c, d, Int4{0, 1, 4, 5});
  m[3] = __builtin_shuffle(c, d, Int4{2, 3, 6, 7});
}

// The rounds of a 4 x 4 matrix, four rows or columns at a time, with the additions of the general
// one in its order.
void Balance4(std::span<float> values, int rounds) {
  Float4 m[4];  // columns, then rows, by turns
  std::memcpy(m, values.data(), sizeof(m));
  Transpose(m);
  for (int half = 0; half < 2 * rounds; ++half) {
    const Float4 sum = ((m[0] + m[1]) + m[2]) + m[3];
    for (Float4& vector : m) vector /= sum;
    Transpose(m);
  }
  Transpose(m);
  std::memcpy(values.data(), m, sizeof(m));
}

void Balance(std::span<float> m, size_t n, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    for (size_t r = 0; r < n; ++r) {
      float sum = 0;
      for (size_t c = 0; c < n; ++c) sum += m[r * n + c];
      for (size_t c = 0; c < n; ++c) m[r * n + c] /= sum;
    }
    for (size_t c = 0; c < n; ++c) {
      float sum = 0;
      for (size_t r = 0; r < n; ++r) sum += m[r * n + c];
      for (size_t r = 0; r < n; ++r) m[r * n + c] /= sum;
    }
  }
}

// Sixteen values of every stream at a time, so that all are read before one is written; a constant
// number of them, and coefficients that no stream can alias, so that the compiler keeps them in
// registers (8 -> 28 GB/s, as a copy).
template <size_t kStreams>
void ExpandStreams(const HyperMix& mix, std::span<const float> y, std::span<float> streams) {
  constexpr size_t kBlock = 16;
  float post[kStreams], residual[kStreams * kStreams];
  std::copy_n(mix.post.data(), kStreams, post);
  std::copy_n(mix.residual.data(), kStreams * kStreams, residual);
  const auto expand = [&](size_t i, auto count) {
    float own[kBlock], before[kStreams][kBlock];
    std::copy_n(y.data() + i, count, own);
    for (size_t j = 0; j < kStreams; ++j) {
      std::copy_n(streams.data() + j * y.size() + i, count, before[j]);
    }
    for (size_t g = 0; g < kStreams; ++g) {
      float* const stream = streams.data() + g * y.size() + i;
      for (size_t l = 0; l < count; ++l) {
        float sum = post[g] * own[l];
        for (size_t j = 0; j < kStreams; ++j) {
          sum = std::fma(residual[g * kStreams + j], before[j][l], sum);
        }
        stream[l] = sum;
      }
    }
  };
  const size_t whole = y.size() / kBlock * kBlock;
  for (size_t i = 0; i < whole; i += kBlock) expand(i, std::integral_constant<size_t, kBlock>());
  for (size_t i = whole; i < y.size(); ++i) expand(i, std::integral_constant<size_t, 1>());
}

}  // namespace

void SinkhornExp(std::span<float> m, int64_t streams, int rounds) {
  const auto n = static_cast<size_t>(streams);
  CHECK_EQ(m.size(), n * n);
  for (size_t r = 0; r < n; ++r) {
    // Dividing a row by a constant does not change what the first row pass makes of it, and exp
    // cannot overflow.
    const float largest = *std::max_element(m.begin() + static_cast<ptrdiff_t>(r * n),
                                            m.begin() + static_cast<ptrdiff_t>((r + 1) * n));
    for (size_t c = 0; c < n; ++c) m[r * n + c] = ExpNonPositive(m[r * n + c] - largest);
  }
  if (n == 4) return Balance4(m, rounds);
  Balance(m, n, rounds);
}

void HyperCollapse(const HyperMix& mix, std::span<const float> streams, std::span<float> u) {
  CHECK_EQ(streams.size(), mix.pre.size() * u.size());
  std::fill(u.begin(), u.end(), 0.0f);
  for (size_t g = 0; g < mix.pre.size(); ++g)
    AddScaled(u, mix.pre[g], streams.subspan(g * u.size(), u.size()));
}

void HyperExpand(const HyperMix& mix, std::span<const float> y, std::span<float> streams) {
  const size_t n = mix.post.size();
  CHECK_EQ(streams.size(), n * y.size());
  if (n == 4) return ExpandStreams<4>(mix, y, streams);
  const std::vector<float> before(streams.begin(), streams.end());
  for (size_t g = 0; g < n; ++g) {
    const std::span<float> stream = streams.subspan(g * y.size(), y.size());
    for (size_t i = 0; i < y.size(); ++i) stream[i] = mix.post[g] * y[i];
    for (size_t j = 0; j < n; ++j) {
      AddScaled(stream, mix.residual[g * n + j], {before.data() + j * y.size(), y.size()});
    }
  }
}

}  // namespace engram::kernels
