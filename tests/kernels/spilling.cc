// What check_spills_test.py compiles and looks for: loops that spill, and loops that only look so.
#include <immintrin.h>

namespace spilling {

// 20 sums for 16 registers.
void KeepsTwentySums(const float* x, const float* w, long count, float* y) {
  __m256 sum[20];
#pragma GCC unroll 20
  for (int i = 0; i < 20; ++i) sum[i] = _mm256_loadu_ps(y + 8 * i);
  for (long c = 0; c < count; ++c) {
#pragma GCC unroll 20
    for (int i = 0; i < 20; ++i) {
      sum[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + c), _mm256_loadu_ps(w + 8 * i), sum[i]);
    }
  }
#pragma GCC unroll 20
  for (int i = 0; i < 20; ++i) _mm256_storeu_ps(y + 8 * i, sum[i]);
}

// An array that an index reaches: the program's own.
float CountsIntoAnArray(const float* x, const float* w, long count, long which) {
  volatile long first = which;
  float sum[64] = {};
  float* const sums = sum;
  for (long c = 0; c < count; ++c) {
    const __m256 both = _mm256_fmadd_ps(_mm256_loadu_ps(x + 8 * c), _mm256_loadu_ps(w),
                                        _mm256_loadu_ps(sums + c % 8 * 8));
    _mm256_storeu_ps(sums + c % 8 * 8, both);
  }
  return sum[first];
}

// 8 sums: all have a register.
void KeepsEightSums(const float* x, const float* w, long count, float* y) {
  __m256 sum[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sum[i] = _mm256_loadu_ps(y + 8 * i);
  for (long c = 0; c < count; ++c) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      sum[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + c), _mm256_loadu_ps(w + 8 * i), sum[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) _mm256_storeu_ps(y + 8 * i, sum[i]);
}

// What lives across a call is stored because of the call.
float Called(float);
void CallsInTheLoop(float* x, long count) {
  __m256 sum = _mm256_setzero_ps();
  for (long c = 0; c < count; ++c) {
    sum = _mm256_add_ps(sum, _mm256_set1_ps(Called(x[c])));
  }
  _mm256_storeu_ps(x, sum);
}

}  // namespace spilling
