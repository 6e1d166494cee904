// Multiply-adds of AVX-512 over registers alone.
#include <immintrin.h>

#include <cstdint>

namespace engram::bench {

double RegisterPeakBf16Avx512(int64_t rounds);
double RegisterPeakFp32Avx512(int64_t rounds);

double RegisterPeakBf16Avx512(int64_t rounds) {
  __m512 sum[24];
#pragma GCC unroll 24
  for (int j = 0; j < 24; ++j) sum[j] = _mm512_set1_ps(1.0f);
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f003f00));
  const auto b = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3e803e80));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) {
      sum[j] = _mm512_dpbf16_ps(sum[j], a, b);
      asm volatile("" : "+v"(sum[j]));  // neither hoisted nor left out
    }
  }
  return static_cast<double>(rounds) * 24 * 32 * 2;
}

double RegisterPeakFp32Avx512(int64_t rounds) {
  __m512 sum[24];
#pragma GCC unroll 24
  for (int j = 0; j < 24; ++j) sum[j] = _mm512_set1_ps(1.0f);
  const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) {
      sum[j] = _mm512_fmadd_ps(a, b, sum[j]);
      asm volatile("" : "+v"(sum[j]));
    }
  }
  return static_cast<double>(rounds) * 24 * 16 * 2;
}

}  // namespace engram::bench
