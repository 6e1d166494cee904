// The bf16 multiply-add of AVX-512, over registers alone.
#include <immintrin.h>

#include <cstdint>

namespace engram::bench {

double RegisterPeakAvx512(int64_t rounds);

double RegisterPeakAvx512(int64_t rounds) {
  __m512 sum[24];
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  __m512i a = _mm512_set1_epi32(0x3f003f00), b = _mm512_set1_epi32(0x3e803e80);
  for (int64_t i = 0; i < rounds; ++i) {
    for (auto& s : sum) {
      s = _mm512_dpbf16_ps(s, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (auto& s : sum) asm volatile("" : "+v"(s));  // all of them are wanted
  return static_cast<double>(rounds) * 24 * 32 * 2;
}

}  // namespace engram::bench
