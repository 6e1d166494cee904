// The matrix products for AVX2 and FMA, bit-identical to kernels/plain/linear.cc: tiles of rows x
// tokens share loads, every output keeps its own sixteen lanes (two registers) in the specified
// order.
#include <algorithm>

#include "common/base/check.h"
#include "kernels/cpu/row_product.h"
#include "kernels/isa.h"
#include "kernels/ops.h"
#include "kernels/packed.h"
#include "kernels/reduce.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace engram::kernels {
namespace {

struct Bf16Weights {
  static constexpr int64_t kBytes = 2;
  static __m256 Load8(const std::byte* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
};

struct F32Weights {
  static constexpr int64_t kBytes = 4;
  static __m256 Load8(const std::byte* p) {
    return _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

// The order of FoldLanes: 8, 4, 2, 1.
float Fold(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// One register's worth of the last, partial group of lanes; absent lanes are 0.
template <typename Weights>
void CopyTail(const std::byte* from, int64_t count, std::byte* to) {
  std::copy_n(from, count * Weights::kBytes, to);
}

template <typename Weights, int kRowTile, int kTokenTile>
void LinearTile(const float* x, int64_t x_stride, const Matrix& w, int64_t row, float* y,
                int64_t y_stride) {
  __m256 sum[kRowTile][kTokenTile][2];
  const std::byte* weights[kRowTile];
  for (int r = 0; r < kRowTile; ++r) {
    weights[r] = w.row(row + r);
    for (int t = 0; t < kTokenTile; ++t) sum[r][t][0] = sum[r][t][1] = _mm256_setzero_ps();
  }
  const int64_t whole = w.columns / kLanes * kLanes;
  for (int64_t c = 0; c < whole; c += kLanes) {
    for (int half = 0; half < 2; ++half) {
      __m256 wv[kRowTile];
      for (int r = 0; r < kRowTile; ++r)
        wv[r] = Weights::Load8(weights[r] + (c + 8 * half) * Weights::kBytes);
      for (int t = 0; t < kTokenTile; ++t) {
        const __m256 xv = _mm256_loadu_ps(x + t * x_stride + c + 8 * half);
        for (int r = 0; r < kRowTile; ++r)
          sum[r][t][half] = _mm256_fmadd_ps(xv, wv[r], sum[r][t][half]);
      }
    }
  }
  if (whole < w.columns) {
    for (int t = 0; t < kTokenTile; ++t) {
      alignas(32) float x_tail[kLanes] = {};
      std::copy_n(x + t * x_stride + whole, w.columns - whole, x_tail);
      for (int r = 0; r < kRowTile; ++r) {
        alignas(32) std::byte w_tail[kLanes * 4] = {};
        CopyTail<Weights>(weights[r] + whole * Weights::kBytes, w.columns - whole, w_tail);
        for (int half = 0; half < 2; ++half) {
          sum[r][t][half] =
              _mm256_fmadd_ps(_mm256_load_ps(x_tail + 8 * half),
                              Weights::Load8(w_tail + 8 * half * Weights::kBytes), sum[r][t][half]);
        }
      }
    }
  }
  for (int t = 0; t < kTokenTile; ++t) {
    for (int r = 0; r < kRowTile; ++r) y[t * y_stride + row + r] = Fold(sum[r][t][0], sum[r][t][1]);
  }
}

template <typename Weights, int kRowTile, int kTokenTile>
void LinearTokens(Rows x, int64_t token, const Matrix& w, float* y, int64_t y_stride) {
  const float* from = x.data + token * x.stride;
  float* to = y + token * y_stride;
  int64_t row = 0;
  for (; row + kRowTile <= w.rows; row += kRowTile) {
    LinearTile<Weights, kRowTile, kTokenTile>(from, x.stride, w, row, to, y_stride);
  }
  for (; row < w.rows; ++row)
    LinearTile<Weights, 1, kTokenTile>(from, x.stride, w, row, to, y_stride);
}

// A block of rows stays in cache while every tile of tokens passes over it. Measured on Zen 5: 2
// rows x 3 tokens fill 12 of 16 registers; one token takes 4 rows so that four streams of weights
// are read at once.
template <typename Weights>
void LinearTyped(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  constexpr int64_t kRowBlock = 16;
  for (int64_t first = 0; first < w.rows; first += kRowBlock) {
    const Matrix block = w.Rows(first, std::min(kRowBlock, w.rows - first));
    float* out = y + first;
    int64_t t = 0;
    for (; t + 3 <= x.count; t += 3) LinearTokens<Weights, 2, 3>(x, t, block, out, y_stride);
    if (x.count - t == 2) LinearTokens<Weights, 2, 2>(x, t, block, out, y_stride);
    if (x.count - t == 1) LinearTokens<Weights, 4, 1>(x, t, block, out, y_stride);
  }
}

// kRegisters * 8 columns of kTokens outputs. Unrolled by pragma: gcc 12 leaves sums in memory as
// soon as their address is taken (one token: 30 -> 44 GFLOP/s).
template <typename Weights, int kTokens, int kRegisters>
void TransposedTile(const float* x, int64_t x_stride, const Matrix& w, int64_t column, float* y,
                    int64_t y_stride) {
  __m256 sum[kTokens][kRegisters];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int i = 0; i < kRegisters; ++i) sum[t][i] = _mm256_setzero_ps();
  }
  const std::byte* from = w.data + column * Weights::kBytes;
  for (int64_t r = 0; r < w.rows; ++r, from += w.stride * Weights::kBytes, ++x) {
    const auto load = [&](int i) { return Weights::Load8(from + 8 * i * Weights::kBytes); };
    __m256 weights[kRegisters];
#pragma GCC unroll 8
    for (int i = 0; kTokens > 1 && i < kRegisters; ++i) weights[i] = load(i);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256 scale = _mm256_broadcast_ss(x + t * x_stride);
#pragma GCC unroll 8
      for (int i = 0; i < kRegisters; ++i) {
        sum[t][i] = _mm256_fmadd_ps(scale, kTokens > 1 ? weights[i] : load(i), sum[t][i]);
      }
    }
  }
  y += column;
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t, y += y_stride) {
#pragma GCC unroll 8
    for (int i = 0; i < kRegisters; ++i) _mm256_storeu_ps(y + 8 * i, sum[t][i]);
  }
}

// Up to 6 tokens x 2 registers: 12 sums, their weights and one x are 15 of the 16 registers.
template <typename Weights>
void TransposedTokens(Rows x, const Matrix& w, int64_t column, float* y, int64_t y_stride) {
  constexpr int64_t kTileTokens = 6;
  const int64_t tiles = (x.count + kTileTokens - 1) / kTileTokens;
  for (int64_t tile = 0; tile < tiles; ++tile) {  // of sizes that differ by one at most
    const int64_t t = x.count * tile / tiles;
    const auto run = [&](auto multiply) {
      multiply(x.data + t * x.stride, x.stride, w, column, y + t * y_stride, y_stride);
    };
    switch (x.count * (tile + 1) / tiles - t) {
      case 1:
        run(TransposedTile<Weights, 1, 2>);
        break;
      case 2:
        run(TransposedTile<Weights, 2, 2>);
        break;
      case 3:
        run(TransposedTile<Weights, 3, 2>);
        break;
      case 4:
        run(TransposedTile<Weights, 4, 2>);
        break;
      case 5:
        run(TransposedTile<Weights, 5, 2>);
        break;
      default:
        run(TransposedTile<Weights, 6, 2>);
    }
  }
}

template <typename Weights>
void TransposedTyped(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  const int64_t whole = w.columns / kLanes * kLanes;
  int64_t c = 0;
  for (; x.count < 4 && c + 64 <= whole; c += 64) {
    for (int64_t t = 0; t < x.count; ++t) {
      TransposedTile<Weights, 1, 8>(x.data + t * x.stride, x.stride, w, c, y + t * y_stride,
                                    y_stride);
    }
  }
  for (; c < whole; c += kLanes) TransposedTokens<Weights>(x, w, c, y, y_stride);
  if (whole == w.columns) return;
  const Matrix rest{
      w.data + whole * Weights::kBytes, w.dtype, w.rows, w.columns - whole, w.stride, nullptr};
  ref::TransposedRows(x, rest, y + whole, y_stride);
}

bool HasAvx512() { return ActiveIsa() >= Isa::kAvx512; }

cpu::StoredWeights Stored(const Matrix& w) {
  return {w.data, w.dtype == DType::kBf16, w.rows, w.columns, w.stride};
}

}  // namespace

void LinearRows(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  if (HasAvx512()) {
    return cpu::LinearRowsAvx512({x.data, x.count, x.stride}, Stored(w), y, y_stride);
  }
  if (w.dtype == DType::kBf16) return LinearTyped<Bf16Weights>(x, w, y, y_stride);
  CHECK(w.dtype == DType::kF32) << DTypeName(w.dtype);
  LinearTyped<F32Weights>(x, w, y, y_stride);
}

void TransposedRows(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  if (HasAvx512()) {
    return cpu::TransposedRowsAvx512({x.data, x.count, x.stride}, Stored(w), y, y_stride);
  }
  if (w.dtype == DType::kBf16) return TransposedTyped<Bf16Weights>(x, w, y, y_stride);
  CHECK(w.dtype == DType::kF32) << DTypeName(w.dtype);
  TransposedTyped<F32Weights>(x, w, y, y_stride);
}

}  // namespace engram::kernels
#else

namespace engram::kernels {

void LinearRows(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  ref::LinearRows(x, w, y, y_stride);
}

void TransposedRows(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  ref::TransposedRows(x, w, y, y_stride);
}

}  // namespace engram::kernels
#endif

namespace engram::kernels {

void Prefetch(const Matrix& w) {
  const std::byte* const end = w.row(w.rows);
  for (const std::byte* line = w.data; line < end; line += 64) __builtin_prefetch(line, 0, 2);
}

void Linear(Pool& pool, std::span<const float> x, const Matrix& w, std::span<float> y) {
  CHECK_EQ(std::ssize(y), std::ssize(x) / w.columns * w.rows);
  if (w.packed != nullptr) return LinearPacked(pool, x, *w.packed, y);
  Linear(pool, x, w, y.data(), w.rows);
}

void Linear(Pool& pool, std::span<const float> x, const Matrix& w, float* y, int64_t y_stride) {
  const int64_t tokens = std::ssize(x) / w.columns;
  CHECK_EQ(std::ssize(x), tokens * w.columns);
  // Tokens in blocks whose x (fp32) stays in a 1 MiB second-level cache beside a block of weights.
  const int64_t token_block = std::max<int64_t>(12, 131072 / w.columns / 3 * 3);
  // Below about 10 us of work a second thread costs more than it saves.
  const int64_t grain = std::max<int64_t>(16, 131072 / std::max<int64_t>(1, w.columns * tokens));
  pool.Run(w.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < tokens; t += token_block) {
      const Rows block{x.data() + t * w.columns, std::min(token_block, tokens - t), w.columns};
      LinearRows(block, w.Rows(begin, end - begin), y + t * y_stride + begin, y_stride);
    }
  });
}

}  // namespace engram::kernels
