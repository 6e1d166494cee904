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

void Transpose(Float4 (&m)[4]) {
  const Float4 a = __builtin_shufflevector(m[0], m[1], 0, 4, 1, 5);
  const Float4 b = __builtin_shufflevector(m[2], m[3], 0, 4, 1, 5);
  const Float4 c = __builtin_shufflevector(m[0], m[1], 2, 6, 3, 7);
  const Float4 d = __builtin_shufflevector(m[2], m[3], 2, 6, 3, 7);
  m[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  m[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  m[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  m[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
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

void Balance(std::span<float> m, int64_t n, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    for (int64_t r = 0; r < n; ++r) {
      float sum = 0;
      for (int64_t c = 0; c < n; ++c) sum += m[r * n + c];
      for (int64_t c = 0; c < n; ++c) m[r * n + c] /= sum;
    }
    for (int64_t c = 0; c < n; ++c) {
      float sum = 0;
      for (int64_t r = 0; r < n; ++r) sum += m[r * n + c];
      for (int64_t r = 0; r < n; ++r) m[r * n + c] /= sum;
    }
  }
}

// Sixteen values of every stream at a time, so that all are read before one is written; a constant
// number of them, and coefficients that no stream can alias, so that the compiler keeps them in
// registers (8 -> 28 GB/s, as a copy). kStreams 0: as many as there are.
template <int64_t kStreams>
void ExpandStreams(const HyperMix& mix, std::span<const float> y, std::span<float> streams) {
  constexpr int64_t kBlock = 16;
  constexpr int64_t kMost = kStreams > 0 ? kStreams : kHyperStreamsMax;
  const int64_t n = kStreams > 0 ? kStreams : std::ssize(mix.post), width = std::ssize(y);
  float post[kMost], residual[kMost * kMost];
  std::copy_n(mix.post.data(), n, post);
  std::copy_n(mix.residual.data(), n * n, residual);
  const auto expand = [&](int64_t i, auto count) {
    float own[kBlock], before[kMost][kBlock];
    std::copy_n(y.data() + i, count, own);
    for (int64_t j = 0; j < n; ++j) std::copy_n(streams.data() + j * width + i, count, before[j]);
    for (int64_t g = 0; g < n; ++g) {
      float* const stream = streams.data() + g * width + i;
      for (int64_t l = 0; l < count; ++l) {
        float sum = post[g] * own[l];
        for (int64_t j = 0; j < n; ++j) sum = std::fma(residual[g * n + j], before[j][l], sum);
        stream[l] = sum;
      }
    }
  };
  const int64_t whole = width / kBlock * kBlock;
  for (int64_t i = 0; i < whole; i += kBlock) expand(i, std::integral_constant<int64_t, kBlock>());
  for (int64_t i = whole; i < width; ++i) expand(i, std::integral_constant<int64_t, 1>());
}

}  // namespace

void SinkhornExp(std::span<float> m, int64_t n, int rounds) {
  CHECK_EQ(std::ssize(m), n * n);
  for (int64_t r = 0; r < n; ++r) {
    // Dividing a row by a constant does not change what the first row pass makes of it, and exp
    // cannot overflow.
    const float largest = *std::max_element(m.begin() + r * n, m.begin() + (r + 1) * n);
    for (int64_t c = 0; c < n; ++c) m[r * n + c] = ExpNonPositive(m[r * n + c] - largest);
  }
  if (n == 4) return Balance4(m, rounds);
  Balance(m, n, rounds);
}

void HyperCollapse(const HyperMix& mix, std::span<const float> streams, std::span<float> u) {
  CHECK_EQ(streams.size(), mix.pre.size() * u.size());
  std::fill(u.begin(), u.end(), 0.0f);
  for (int64_t g = 0; g < std::ssize(mix.pre); ++g) {
    AddScaled(u, mix.pre[g], streams.subspan(g * u.size(), u.size()));
  }
}

void HyperExpand(const HyperMix& mix, std::span<const float> y, std::span<float> streams) {
  const int64_t n = std::ssize(mix.post);
  CHECK(n <= kHyperStreamsMax && std::ssize(streams) == n * std::ssize(y)) << n << " streams";
  return n == 4 ? ExpandStreams<4>(mix, y, streams) : ExpandStreams<0>(mix, y, streams);
}

}  // namespace engram::kernels
