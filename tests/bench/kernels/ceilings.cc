#include "tests/bench/kernels/ceilings.h"

#include <immintrin.h>

namespace engram::bench {
namespace {

volatile float sink;

}  // namespace

double RegisterPeakBf16(kernels::Isa isa, int64_t rounds) {
  if (isa == kernels::Isa::kAvx512Bf16) return RegisterPeakBf16Avx512(rounds);
  return RegisterPeakFp32(isa, rounds);  // bf16 is widened
}

double RegisterPeakFp32(kernels::Isa isa, int64_t rounds) {
  if (isa >= kernels::Isa::kAvx512) return RegisterPeakFp32Avx512(rounds);
  __m256 sum[12];
  for (auto& s : sum) s = _mm256_set1_ps(1.0f);
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
  for (int64_t i = 0; i < 2 * rounds; ++i) {
    for (auto& s : sum) s = _mm256_fmadd_ps(a, b, s);
    asm volatile("" : "+x"(a), "+x"(b));
  }
  __m256 all = sum[0];
  for (const auto& s : sum) all = _mm256_add_ps(all, s);
  sink = _mm256_cvtss_f32(all);
  return static_cast<double>(rounds) * 24 * 8 * 2;
}

uint64_t ReadStream(const std::byte* data, int64_t bytes, bool ask_ahead) {
  __m256i sum[4] = {};
  for (int64_t at = 0; at < bytes; at += 512) {
    for (int64_t line = 0; line < 512; line += 128) {
      if (ask_ahead) {
        _mm_prefetch(reinterpret_cast<const char*>(data + at + line + 4096), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(data + at + line + 4160), _MM_HINT_T0);
      }
      for (int64_t i = 0; i < 4; ++i) {
        sum[i] = _mm256_add_epi64(
            sum[i],
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + at + line + 32 * i)));
      }
    }
  }
  const __m256i all =
      _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), all);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

}  // namespace engram::bench
