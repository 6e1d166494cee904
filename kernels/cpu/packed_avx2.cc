// Packed bf16 weights by AVX2: each bf16 widened, the even column of a pair added before the odd
// one, by fused multiply-add: bit-identical to the scalar version.
#include "kernels/cpu/packed_product.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace engram::kernels::cpu {
namespace {

constexpr int64_t kTileTokens = 4;
constexpr int64_t kStripOutputs = 16;  // 4 x 2 accumulators, 2 x 2 weights, 2 of x: 14 registers

__m256 Even(__m256i pair) { return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)); }
__m256 Odd(__m256i pair) {
  return _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(-65536)));
}

template <int kTokens>
void MultiplyStrip(const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t pairs,
                   float out[kTokens][kStripOutputs]) {
  __m256 sum[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sum[t][0] = sum[t][1] = _mm256_setzero_ps();
  for (int64_t p = 0; p < pairs; ++p, w += kTileRows * 2) {
    const auto* from = reinterpret_cast<const __m256i*>(w);
    const __m256i low = _mm256_loadu_si256(from);
    const __m256i high = _mm256_loadu_si256(from + 1);
    for (int t = 0; t < kTokens; ++t) {
      int pair;
      __builtin_memcpy(&pair, x + t * x_stride + 2 * p, sizeof(pair));
      const __m256i both = _mm256_set1_epi32(pair);
      sum[t][0] = _mm256_fmadd_ps(Even(both), Even(low), sum[t][0]);
      sum[t][1] = _mm256_fmadd_ps(Even(both), Even(high), sum[t][1]);
      sum[t][0] = _mm256_fmadd_ps(Odd(both), Odd(low), sum[t][0]);
      sum[t][1] = _mm256_fmadd_ps(Odd(both), Odd(high), sum[t][1]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    _mm256_storeu_ps(out[t], sum[t][0]);
    _mm256_storeu_ps(out[t] + 8, sum[t][1]);
  }
}

}  // namespace

void PackedProductAvx2(const uint16_t* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                       int64_t tile, int64_t tile_end, float* y, int64_t y_stride) {
  for (; tile < tile_end; ++tile, y += kTileRows) {
    const uint16_t* const weights = w.data + tile * w.pairs * kTileRows * 2;
    for (int64_t strip = 0; strip < kTileRows; strip += kStripOutputs) {
      const int64_t first = tile * kTileRows + strip;
      const int64_t left = w.rows - first;
      if (left <= 0) break;
      const int64_t outputs = left < kStripOutputs ? left : kStripOutputs;
      for (int64_t t = 0; t < tokens; t += kTileTokens) {
        float out[kTileTokens][kStripOutputs];
        const uint16_t* const from = x + t * x_stride;
        const uint16_t* const strip_weights = weights + strip * 2;
        int64_t count = tokens - t;
        if (count >= kTileTokens) {
          count = kTileTokens;
          MultiplyStrip<kTileTokens>(from, x_stride, strip_weights, w.pairs, out);
        } else {
          for (int64_t one = 0; one < count; ++one) {
            MultiplyStrip<1>(from + one * x_stride, x_stride, strip_weights, w.pairs, out + one);
          }
        }
        for (int64_t one = 0; one < count; ++one) {
          for (int64_t o = 0; o < outputs; ++o) y[(t + one) * y_stride + strip + o] = out[one][o];
        }
      }
    }
  }
}

}  // namespace engram::kernels::cpu

#else

namespace engram::kernels::cpu {

void PackedProductAvx2(const uint16_t* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                       int64_t tile, int64_t tile_end, float* y, int64_t y_stride) {
  PackedProductScalar(x, x_stride, tokens, w, tile, tile_end, y, y_stride);
}

}  // namespace engram::kernels::cpu
#endif
