// The products over weights as stored, by AVX-512: one register holds the sixteen lanes of an
// output, so that every bit is that of kernels/plain/linear.cc.
#include <immintrin.h>

#include "kernels/cpu/row_product.h"

namespace engram::kernels::cpu {
namespace {

constexpr int64_t kLanes = 16;

struct F32 {
  using Value = float;
  static __m512 Load(const Value* p) { return _mm512_loadu_ps(p); }
  static __m512 Load(__mmask16 mask, const Value* p) { return _mm512_maskz_loadu_ps(mask, p); }
};

struct Bf16 {
  using Value = uint16_t;
  static __m512 Widen(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static __m512 Load(const Value* p) {
    return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 Load(__mmask16 mask, const Value* p) {
    return Widen(_mm256_maskz_loadu_epi16(mask, p));
  }
};

// Lanes 8, 4, 2, 1 of sixteen registers folded at once: lane 4 j + k of the result is the sum of
// v[j + 4 k]. Inlined, so that they need not pass through memory.
[[gnu::always_inline]] inline __m512 Fold16(const __m512* v) {
  __m512 eights[8], fours[4], twos[2];
#pragma GCC unroll 16
  for (int i = 0; i < 8; ++i) {
    const __m512 a = v[2 * i], b = v[2 * i + 1];
    eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {
    const __m512 a = eights[2 * i], b = eights[2 * i + 1];
    fours[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
#pragma GCC unroll 16
  for (int i = 0; i < 2; ++i) {
    const __m512d a = _mm512_castps_pd(fours[2 * i]), b = _mm512_castps_pd(fours[2 * i + 1]);
    twos[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  return _mm512_add_ps(_mm512_shuffle_ps(twos[0], twos[1], 0x88),
                       _mm512_shuffle_ps(twos[0], twos[1], 0xdd));
}

float Fold(__m512 v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// sum[t][r] of kTokens x kRows outputs.
template <typename Weights, int kRows, int kTokens>
void Multiply(const float* x, int64_t x_stride, const typename Weights::Value* w, int64_t stride,
              int64_t columns, __m512 (*sum)[kRows]) {
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sum[t][r] = _mm512_setzero_ps();
  }
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    const auto load = [&](int r) { return Weights::Load(w + r * stride + c); };
    __m512 weights[kRows];  // one token meets each as it comes: 16 would not fit beside 16 sums
#pragma GCC unroll 16
    for (int r = 0; kTokens > 1 && r < kRows; ++r) weights[r] = load(r);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const __m512 xv = _mm512_loadu_ps(x + t * x_stride + c);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        sum[t][r] = _mm512_fmadd_ps(xv, kTokens > 1 ? weights[r] : load(r), sum[t][r]);
      }
    }
  }
  if (c == columns) return;
  const auto mask = static_cast<__mmask16>((1 << (columns - c)) - 1);
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    const __m512 xv = _mm512_maskz_loadu_ps(mask, x + t * x_stride + c);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      sum[t][r] = _mm512_fmadd_ps(xv, Weights::Load(mask, w + r * stride + c), sum[t][r]);
    }
  }
}

// What will be read next, asked for a few lines a tile, so that fetching does not hold up the loads
// of any.
class Fetcher {
 public:
  Fetcher(const StoredWeights& w, int64_t tiles)
      : line_(static_cast<const char*>(w.ahead)),
        left_(w.ahead == nullptr ? 0 : w.ahead_lines),
        lines_a_tile_((left_ + tiles - 1) / tiles) {}
  void OfTile() {
    const int64_t count = lines_a_tile_ < left_ ? lines_a_tile_ : left_;
    for (int64_t i = 0; i < count; ++i) _mm_prefetch(line_ + kLineBytes * i, _MM_HINT_T0);
    Advance(count);
  }
  // For a tile that asks by itself, a line with each of `rows`: from where, and how far each time.
  const char* line() const { return line_; }
  int64_t Step(int64_t rows) const { return left_ >= rows ? kLineBytes : 0; }
  void Advance(int64_t lines) {
    line_ += kLineBytes * lines;
    left_ -= lines;
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  const char* line_;
  int64_t left_;
  int64_t lines_a_tile_;
};

template <typename Weights>
void LinearOf(const Vectors& x, const StoredWeights& w, float* y, int64_t y_stride) {
  const auto* const weights = static_cast<const typename Weights::Value*>(w.data);
  Fetcher fetcher(w, (x.count + 3) / 4 * ((w.rows + 3) / 4));
  // A block of rows stays in cache while every tile of tokens passes over it.
  constexpr int64_t kRowBlock = 16;
  for (int64_t first = 0; first < w.rows; first += kRowBlock) {
    const int64_t end = first + kRowBlock < w.rows ? first + kRowBlock : w.rows;
    int64_t t = 0;
    for (; t + 4 <= x.count; t += 4) {
      const float* const from = x.data + t * x.stride;
      int64_t row = first;
      for (; row + 4 <= end; row += 4) {
        fetcher.OfTile();
        __m512 sum[4][4], flat[16];
        Multiply<Weights, 4, 4>(from, x.stride, weights + row * w.stride, w.stride, w.columns, sum);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) flat[i] = sum[i % 4][i / 4];  // token + 4 row
        alignas(64) float folded[16];
        _mm512_store_ps(folded, Fold16(flat));
#pragma GCC unroll 16
        for (int i = 0; i < 4; ++i) {
          _mm_storeu_ps(y + (t + i) * y_stride + row, _mm_load_ps(folded + 4 * i));
        }
      }
      for (; row < end; ++row) {
        __m512 sum[4][1];
        Multiply<Weights, 1, 4>(from, x.stride, weights + row * w.stride, w.stride, w.columns, sum);
#pragma GCC unroll 16
        for (int i = 0; i < 4; ++i) y[(t + i) * y_stride + row] = Fold(sum[i][0]);
      }
    }
    for (; t < x.count; ++t) {
      const float* const from = x.data + t * x.stride;
      int64_t row = first;
      if (row + 16 <= end) {
        __m512 sum[1][16], flat[16];
        Multiply<Weights, 16, 1>(from, x.stride, weights + row * w.stride, w.stride, w.columns,
                                 sum);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) flat[i] = sum[0][i / 4 + 4 * (i % 4)];
        _mm512_storeu_ps(y + t * y_stride + row, Fold16(flat));
        row += 16;
      }
      for (; row < end; ++row) {
        __m512 sum[1][1];
        Multiply<Weights, 1, 1>(from, x.stride, weights + row * w.stride, w.stride, w.columns, sum);
        y[t * y_stride + row] = Fold(sum[0][0]);
      }
    }
  }
}

// kRegisters * 16 columns of kTokens outputs; `mask` is of the last register. With each row a line
// is asked for, `step` bytes behind the one before.
template <typename Weights, int kTokens, int kRegisters>
void TransposedTile(const float* x, int64_t x_stride, const typename Weights::Value* w,
                    int64_t stride, int64_t rows, __mmask16 mask, float* y, int64_t y_stride,
                    const char* line, int64_t step) {
  __m512 sum[kTokens][kRegisters];
#pragma GCC unroll 16
  for (auto& of_token : sum) {
#pragma GCC unroll 16
    for (__m512& s : of_token) s = _mm512_setzero_ps();
  }
  for (int64_t r = 0; r < rows; ++r, w += stride, line += step) {
    _mm_prefetch(line, _MM_HINT_T0);
    __m512 weights[kRegisters];
#pragma GCC unroll 16
    for (int i = 0; i + 1 < kRegisters; ++i) weights[i] = Weights::Load(w + kLanes * i);
    weights[kRegisters - 1] = Weights::Load(mask, w + kLanes * (kRegisters - 1));
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const __m512 scale = _mm512_set1_ps(x[t * x_stride + r]);
#pragma GCC unroll 16
      for (int i = 0; i < kRegisters; ++i) {
        sum[t][i] = _mm512_fmadd_ps(scale, weights[i], sum[t][i]);
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    float* const to = y + t * y_stride;
#pragma GCC unroll 16
    for (int i = 0; i + 1 < kRegisters; ++i) _mm512_storeu_ps(to + kLanes * i, sum[t][i]);
    _mm512_mask_storeu_ps(to + kLanes * (kRegisters - 1), mask, sum[t][kRegisters - 1]);
  }
}

// Columns [column, column + kRegisters * 16) of all tokens, kTokens at once: the weights stay in
// cache.
template <typename Weights, int kTokens, int kRegisters>
void TransposedColumns(const Vectors& x, const StoredWeights& w, int64_t column, __mmask16 mask,
                       float* y, int64_t y_stride, Fetcher& fetcher) {
  const auto* const weights = static_cast<const typename Weights::Value*>(w.data) + column;
  int64_t t = 0;
  const auto run = [&](auto multiply) {
    const int64_t step = fetcher.Step(w.rows);
    multiply(x.data + t * x.stride, x.stride, weights, w.stride, w.rows, mask,
             y + t * y_stride + column, y_stride,
             step == 0 ? reinterpret_cast<const char*>(weights) : fetcher.line(), step);
    if (step > 0) fetcher.Advance(w.rows);
  };
  for (; kTokens > 1 && t + kTokens <= x.count; t += kTokens) {
    run(TransposedTile<Weights, kTokens, kRegisters>);
  }
  for (; t < x.count; ++t) {
    run(TransposedTile<Weights, 1, kRegisters>);
  }
}

template <typename Weights>
void TransposedOf(const Vectors& x, const StoredWeights& w, float* y, int64_t y_stride) {
  constexpr __mmask16 kAll = 0xffff;
  Fetcher fetcher(w, 1);
  int64_t c = 0;
  if (x.count < 4) {  // as many sums of few tokens as hide the latency of adding
    for (; c + 8 * kLanes <= w.columns; c += 8 * kLanes) {
      TransposedColumns<Weights, 1, 8>(x, w, c, kAll, y, y_stride, fetcher);
    }
  }
  for (; c + 4 * kLanes <= w.columns; c += 4 * kLanes) {
    TransposedColumns<Weights, 4, 4>(x, w, c, kAll, y, y_stride, fetcher);
  }
  for (; c < w.columns; c += kLanes) {
    const int64_t left = w.columns - c;
    const auto mask = static_cast<__mmask16>(left >= kLanes ? kAll : (1 << left) - 1);
    TransposedColumns<Weights, 4, 1>(x, w, c, mask, y, y_stride, fetcher);
  }
}

}  // namespace

void LinearRowsAvx512(const Vectors& x, const StoredWeights& w, float* y, int64_t y_stride) {
  return w.is_bf16 ? LinearOf<Bf16>(x, w, y, y_stride) : LinearOf<F32>(x, w, y, y_stride);
}

void TransposedRowsAvx512(const Vectors& x, const StoredWeights& w, float* y, int64_t y_stride) {
  return w.is_bf16 ? TransposedOf<Bf16>(x, w, y, y_stride) : TransposedOf<F32>(x, w, y, y_stride);
}

}  // namespace engram::kernels::cpu
