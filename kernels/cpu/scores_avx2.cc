// Attention's scores by AVX2. A tile of 6 keys x 16 queries is computed lane by lane: 12 sums, 8
// loads and no shuffle for 12 multiply-adds, whatever the keys' alignment, and the lanes are folded
// by plain additions. LinearRows, with both halves of an output's lanes in registers and a fold of
// each output, reaches 0.65 of the register peak on the same page (0.45 where the keys are not
// aligned to 32 bytes), this 0.79.
#include "kernels/cpu/scores.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace engram::kernels::cpu {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kTileRows = 6;
constexpr int64_t kBlockRows = 64;  // whose scores are turned around at once
constexpr int64_t kLineFloats = 16;

int64_t Steps(int64_t columns, int64_t lane) { return (columns - lane + kLanes - 1) / kLanes; }

// The layout is that of the passes below: lanes 0, 8, 1, 9, .. 7, 15, each with its columns.
int64_t PassOf(int64_t lane) { return lane % 8 * 2 + lane / 8; }

// One lane of kRows keys x 16 queries: sums[row][query] = or (the upper eight lanes) +=. Not
// inlined: gcc would keep the callers' values in the registers the sums need (0.80 -> 0.83 of the
// peak).
template <int kRows>
[[gnu::noinline]] void MultiplyLane(const float* queries, const float* keys, int64_t stride,
                                    int64_t steps, bool add, float* sums) {
  __m256 sum[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  for (int64_t s = 0; s < steps; ++s, queries += kScoreQueries, keys += kLanes) {
    const __m256 low = _mm256_load_ps(queries), high = _mm256_load_ps(queries + 8);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256 key = _mm256_broadcast_ss(keys + r * stride);
      sum[r][0] = _mm256_fmadd_ps(key, low, sum[r][0]);
      sum[r][1] = _mm256_fmadd_ps(key, high, sum[r][1]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      float* const to = sums + kScoreQueries * r + 8 * i;
      _mm256_store_ps(to, add ? _mm256_add_ps(_mm256_load_ps(to), sum[r][i]) : sum[r][i]);
    }
  }
}

// scores[row][query]. Meanwhile the lines from `ahead` on are asked for, as many as are read.
template <int kRows>
void MultiplyTile(const float* queries, const float* keys, int64_t stride, int64_t columns,
                  const float* ahead, float* scores) {
  alignas(64) float sums[kLanes / 2][kRows * kScoreQueries];
  const int64_t lines = kRows * stride / kLineFloats;
  for (int64_t lane = 0; lane < kLanes / 2; ++lane) {
    for (int64_t line = lines * lane / 8; line < lines * (lane + 1) / 8; ++line) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead + line * kLineFloats), _MM_HINT_T0);
    }
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t steps = Steps(columns, lane + 8 * half);
      MultiplyLane<kRows>(queries, keys + lane + 8 * half, stride, steps, half == 1, sums[lane]);
      queries += steps * kScoreQueries;
    }
  }
  for (int64_t i = 0; i < kRows * kScoreQueries; i += 8) {  // lanes 8 are folded: 4, 2, 1
    const auto four = [&](int lane) {
      return _mm256_add_ps(_mm256_load_ps(sums[lane] + i), _mm256_load_ps(sums[lane + 4] + i));
    };
    const __m256 even = _mm256_add_ps(four(0), four(2)), odd = _mm256_add_ps(four(1), four(3));
    _mm256_store_ps(scores + i, _mm256_add_ps(even, odd));
  }
}

void MultiplyRows(int64_t rows, const float* queries, const float* keys, int64_t stride,
                  int64_t columns, const float* ahead, float* scores) {
  switch (rows) {
    case 1:
      return MultiplyTile<1>(queries, keys, stride, columns, ahead, scores);
    case 2:
      return MultiplyTile<2>(queries, keys, stride, columns, ahead, scores);
    case 3:
      return MultiplyTile<3>(queries, keys, stride, columns, ahead, scores);
    case 4:
      return MultiplyTile<4>(queries, keys, stride, columns, ahead, scores);
    case 5:
      return MultiplyTile<5>(queries, keys, stride, columns, ahead, scores);
    default:
      return MultiplyTile<6>(queries, keys, stride, columns, ahead, scores);
  }
}

// 8 x 8 values: to[j * to_stride + i] = from[i * from_stride + j].
void Turn8(const float* from, int64_t from_stride, float* const to[8]) {
  const auto pair = [&](int i) {  // rows i and i + 4, columns 0-3 and 4-7
    const __m256 a = _mm256_loadu_ps(from + i * from_stride);
    const __m256 b = _mm256_loadu_ps(from + (i + 4) * from_stride);
    struct {
      __m256 low, high;
    } both{_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)};
    return both;
  };
  const auto p0 = pair(0), p1 = pair(1), p2 = pair(2), p3 = pair(3);
  const auto four = [&](__m256 r0, __m256 r1, __m256 r2, __m256 r3, float* const* out) {
    const __m256 a = _mm256_unpacklo_ps(r0, r1), b = _mm256_unpackhi_ps(r0, r1);
    const __m256 c = _mm256_unpacklo_ps(r2, r3), d = _mm256_unpackhi_ps(r2, r3);
    _mm256_storeu_ps(out[0], _mm256_shuffle_ps(a, c, 0x44));
    _mm256_storeu_ps(out[1], _mm256_shuffle_ps(a, c, 0xee));
    _mm256_storeu_ps(out[2], _mm256_shuffle_ps(b, d, 0x44));
    _mm256_storeu_ps(out[3], _mm256_shuffle_ps(b, d, 0xee));
  };
  four(p0.low, p1.low, p2.low, p3.low, to);
  four(p0.high, p1.high, p2.high, p3.high, to + 4);
}

// y[query * y_stride + row] = scores[row][query].
void TurnScores(const float* scores, int64_t rows, int64_t queries, float* y, int64_t y_stride) {
  const int64_t whole_rows = rows / 8 * 8, whole = queries / 8 * 8;
  for (int64_t q = 0; q < whole; q += 8) {
    for (int64_t r = 0; r < whole_rows; r += 8) {
      float* to[8];
      for (int64_t i = 0; i < 8; ++i) to[i] = y + (q + i) * y_stride + r;
      Turn8(scores + r * kScoreQueries + q, kScoreQueries, to);
    }
  }
  for (int64_t q = 0; q < queries; ++q) {
    for (int64_t r = q < whole ? whole_rows : 0; r < rows; ++r) {
      y[q * y_stride + r] = scores[r * kScoreQueries + q];
    }
  }
}

}  // namespace

void LayOutQueriesAvx2(const float* x, int64_t x_stride, int64_t count, int64_t columns,
                       float* to) {
  int64_t pass_at[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) pass_at[PassOf(lane)] = Steps(columns, lane);
  for (int64_t pass = 0, at = 0; pass < kLanes; ++pass) {
    const int64_t steps = pass_at[pass];
    pass_at[pass] = at;
    at += steps * kScoreQueries;
  }
  const auto place = [&](int64_t c) {
    return to + pass_at[PassOf(c % kLanes)] + c / kLanes * kScoreQueries;
  };
  for (int64_t first = 0; first < count; first += kScoreQueries, to += kScoreQueries * columns) {
    for (int64_t half = 0; half < kScoreQueries; half += 8) {
      const float* const from = x + (first + half) * x_stride;
      int64_t c = 0;
      for (; first + half + 8 <= count && c + 8 <= columns; c += 8) {
        float* out[8];
        for (int64_t i = 0; i < 8; ++i) out[i] = place(c + i) + half;
        Turn8(from + c, x_stride, out);
      }
      for (; c < columns; ++c) {
        for (int64_t i = 0; i < 8; ++i) {
          place(c)[half + i] = first + half + i < count ? from[i * x_stride + c] : 0.0f;
        }
      }
    }
  }
}

void ScoresAvx2(const float* queries, int64_t count, const Keys& keys, float* y, int64_t y_stride) {
  alignas(64) float scores[kBlockRows * kScoreQueries];
  for (int64_t block = 0; block < keys.rows; block += kBlockRows) {
    const int64_t rows = keys.rows - block < kBlockRows ? keys.rows - block : kBlockRows;
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;  // of sizes that differ by one
    for (int64_t q = 0; q < count; q += kScoreQueries) {
      const float* const of_these = queries + q * keys.columns;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t first = rows * tile / tiles, end = rows * (tile + 1) / tiles;
        const float* const from = keys.data + (block + first) * keys.stride;
        const float* const ahead = block + end < keys.rows || keys.next == nullptr
                                       ? keys.data + (block + end) * keys.stride
                                       : keys.next;
        MultiplyRows(end - first, of_these, from, keys.stride, keys.columns, ahead,
                     scores + first * kScoreQueries);
      }
      const int64_t these = count - q < kScoreQueries ? count - q : kScoreQueries;
      TurnScores(scores, rows, these, y + q * y_stride + block, y_stride);
    }
  }
}

}  // namespace engram::kernels::cpu

#else  // not called

namespace engram::kernels::cpu {

void LayOutQueriesAvx2(const float*, int64_t, int64_t, int64_t, float*) {}
void ScoresAvx2(const float*, int64_t, const Keys&, float*, int64_t) {}

}  // namespace engram::kernels::cpu
#endif
