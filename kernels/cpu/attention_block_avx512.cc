// Attention's passes over scores and sums by AVX-512: a register holds the sixteen lanes of
// ExpScaled (kernels/plain/elementwise.cc) and exp.h's polynomial.
#include <immintrin.h>

#include "kernels/cpu/attention_block.h"

namespace engram::kernels::cpu {
namespace {

constexpr int64_t kLanes = 16;

// ExpNonPositive of exp.h.
__m512 Exp(__m512 x) {
  const __m512 lowest = _mm512_set1_ps(-87.0f), round = _mm512_set1_ps(12582912.0f);
  const __m512 bounded = _mm512_max_ps(lowest, x);
  const __m512 shifted = _mm512_fmadd_ps(bounded, _mm512_set1_ps(1.44269504f), round);
  const __m512 n = _mm512_sub_ps(shifted, round);
  const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f),
                                    _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), bounded));
  __m512 p = _mm512_set1_ps(1.0f / 5040.0f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  const __m512i exponent = _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23),
                                            _mm512_set1_epi32(0x3f800000));
  const __mmask16 is_zero = _mm512_cmp_ps_mask(x, lowest, _CMP_LT_OQ);
  const __m512 value = _mm512_mul_ps(p, _mm512_castsi512_ps(exponent));
  return _mm512_mask_mov_ps(value, is_zero, _mm512_setzero_ps());
}

float Fold(__m512 v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

__mmask16 MaskOf(int64_t left) {
  return static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
}

}  // namespace

void ExpRowsAvx512(float* scores, int64_t rows, int64_t count, int64_t stride, float scale,
                   float* largest, float* sums) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t row = 0; row < rows; ++row, scores += stride) {
    __m512 most = _mm512_set1_ps(scores[0]);
    for (int64_t i = 0; i < count; i += kLanes) {
      most = _mm512_max_ps(most, _mm512_mask_loadu_ps(most, MaskOf(count - i), scores + i));
    }
    largest[row] = _mm512_reduce_max_ps(most);
    const __m512 of_row = _mm512_set1_ps(largest[row]);
    __m512 lanes = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += kLanes) {
      const __mmask16 mask = MaskOf(count - i);
      const __m512 below = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scores + i), of_row);
      const __m512 value = Exp(_mm512_mul_ps(below, factor));
      _mm512_mask_storeu_ps(scores + i, mask, value);
      lanes = _mm512_mask_add_ps(lanes, mask, lanes, value);
    }
    sums[row] = Fold(lanes);
  }
}

void CombineAvx512(float* sum, float keep, const float* more, float take, int64_t count) {
  const __m512 kept = _mm512_set1_ps(keep), taken = _mm512_set1_ps(take);
  for (int64_t i = 0; i < count; i += kLanes) {
    const __mmask16 mask = MaskOf(count - i);
    const __m512 old = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, sum + i), kept);
    const __m512 own = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, more + i), taken);
    _mm512_mask_storeu_ps(sum + i, mask, _mm512_add_ps(old, own));
  }
}

}  // namespace engram::kernels::cpu
