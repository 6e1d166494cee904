// Packed bf16 weights by AVX2: each bf16 widened, the even column of a pair added before the odd
// one, by fused multiply-add: bit-identical to the scalar version. Tiles of up to 6 tokens x 16 to
// 64 outputs keep their sums in registers. With more than one tile of tokens the first one leaves
// the widened weights of a block for the others, which are then nothing but loads and
// multiply-adds.
#include "kernels/cpu/packed_product.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#include <cstring>

namespace engram::kernels::cpu {
namespace {

constexpr int64_t kTileTokens = 6;
// Columns of a block: 256 of 16 outputs, widened, are 16 of the first-level cache's 32 KiB. Few
// tokens are bound by memory: short blocks, so that the next one's weights come while this one's
// are used.
constexpr int64_t kBlockPairs = 128;
constexpr int64_t kShortBlockPairs = 64;
constexpr int64_t kManyTokens = 13;
// One token reads on and on: the processor's own prefetching does most, and is disturbed by asking
// for more than it does (19.7 of 21.6 GB/s; 16.8 at 2 KiB, 13.3 without).
constexpr int64_t kAheadBytes = 768;
// More than these read their activations from the second-level cache again and again.
constexpr int64_t kBlockTokens = 96;
constexpr int64_t kGroupTiles = 4;
constexpr int64_t kPairBytes = kTileRows * 4;  // of one tile's weights of one pair of columns
constexpr int64_t kLineBytes = 64;
constexpr int64_t kStripOutputs = 16;  // outputs are computed in multiples of it

// Registers of outputs beside `tokens` of them: their sums, one column's weights and an activation
// fill most of the 16, so that the sums hide each other's latency.
constexpr int VectorsFor(int64_t tokens) { return tokens == 1 ? 8 : tokens == 2 ? 4 : 2; }

struct Block {
  const float* x;
  int64_t x_stride;
  const char* w;  // of the first pair
  int64_t pairs;
  bool first;  // nothing to add to yet
  float* y;
  int64_t y_stride;
  const char* ahead;  // the lines to ask for: one for each line of the packed weights
  int ahead_shift;    // .. or for each 2, 4 pairs
  float* wide;        // [2 * pairs, outputs]
};

__m256 Even(__m256i pair) { return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)); }
// By shifts, where a mask would take the register that the sums of 6 tokens need (0.49 -> 0.67 of
// the peak).
template <int kTokens>
__m256 Odd(__m256i pair) {
  if constexpr (kTokens > 4) return Even(_mm256_srli_epi32(pair, 16));
  return _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(-65536)));
}
__m256i Load(const char* w) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)); }

// A tile of tokens x 8 kVectors outputs, from the packed weights (kPackedKeep: which are left,
// widened) or from the widened ones. The sums stay in registers only while their address is not
// taken: the loops are written out here.
enum class From { kPacked, kPackedKeep, kWideFetch, kWide };

template <int kTokens, int kVectors, From kFrom>
void MultiplyTile(const Block& block) {
  __m256 sum[kTokens][kVectors];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum[t][v] =
          block.first ? _mm256_setzero_ps() : _mm256_loadu_ps(block.y + t * block.y_stride + 8 * v);
    }
  }
  const char* w = block.w;
  const char* ahead = block.ahead;
  const float* x = block.x;
  float* wide = block.wide;
  for (int64_t p = 0; p < block.pairs; ++p, w += kPairBytes, x += 2) {
    if constexpr (kFrom != From::kWide) {
      constexpr int kLines = (kVectors + 1) / 2;
      const char* const lines =
          kTokens == 1 ? w + kAheadBytes : ahead + (p >> block.ahead_shift) * kLines * kLineBytes;
#pragma GCC unroll 8
      for (int line = 0; line < kLines; ++line)
        _mm_prefetch(lines + line * kLineBytes, _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2; ++i, wide += 8 * kVectors) {  // the columns of the pair
      const auto weight = [&](int v) {
        if constexpr (kFrom == From::kWide || kFrom == From::kWideFetch) {
          return _mm256_load_ps(wide + 8 * v);
        } else {
          const __m256i pair = Load(w + 32 * v);
          const __m256 value = i == 0 ? Even(pair) : Odd<kTokens>(pair);
          if constexpr (kFrom == From::kPackedKeep) _mm256_store_ps(wide + 8 * v, value);
          return value;
        }
      };
      __m256 weights[kVectors];  // one token meets each as it comes: 8 would not fit beside 8 sums
#pragma GCC unroll 8
      for (int v = 0; kTokens > 1 && v < kVectors; ++v) weights[v] = weight(v);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m256 of_token = _mm256_broadcast_ss(x + t * block.x_stride + i);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          sum[t][v] = _mm256_fmadd_ps(of_token, kTokens > 1 ? weights[v] : weight(v), sum[t][v]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      _mm256_storeu_ps(block.y + t * block.y_stride + 8 * v, sum[t][v]);
    }
  }
}

template <int kVectors, From kFrom>
void MultiplyTokens(int64_t tokens, const Block& block) {
  if constexpr (kVectors == 8) return MultiplyTile<1, kVectors, kFrom>(block);
  if constexpr (kVectors == 4) return MultiplyTile<2, kVectors, kFrom>(block);
  switch (tokens) {
    case 1:
      return MultiplyTile<1, kVectors, kFrom>(block);
    case 2:
      return MultiplyTile<2, kVectors, kFrom>(block);
    case 3:
      return MultiplyTile<3, kVectors, kFrom>(block);
    case 4:
      return MultiplyTile<4, kVectors, kFrom>(block);
    case 5:
      return MultiplyTile<5, kVectors, kFrom>(block);
    default:
      return MultiplyTile<6, kVectors, kFrom>(block);
  }
}

// All tokens x 8 kVectors outputs of one block of columns.
template <int kVectors>
void MultiplyStrip(int64_t tokens, Block block) {
  const int64_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
  if (tiles == 1) return MultiplyTokens<kVectors, From::kPacked>(tokens, block);
  alignas(32) float wide[2 * kBlockPairs * 8 * kVectors];
  block.wide = wide;
  // Several tiles share the asking, so that none asks for more than memory gives.
  const int64_t fetchers = tiles < 4 ? 2 : 4;
  const int64_t lines = block.pairs * ((kVectors + 1) / 2);
  block.ahead_shift = tiles < 4 ? 1 : 2;
  const float* const x = block.x;
  float* const y = block.y;
  for (int64_t tile = 0; tile < tiles; ++tile) {  // of sizes that differ by one at most
    const int64_t first = tokens * tile / tiles;
    const int64_t count = tokens * (tile + 1) / tiles - first;
    block.x = x + first * block.x_stride;
    block.y = y + first * block.y_stride;
    if (tile == 0) {
      MultiplyTokens<kVectors, From::kPackedKeep>(count, block);
    } else if (tile < fetchers) {
      block.ahead += lines / fetchers * kLineBytes;
      MultiplyTokens<kVectors, From::kWideFetch>(count, block);
    } else {
      MultiplyTokens<kVectors, From::kWide>(count, block);
    }
  }
}

void MultiplyVectors(int vectors, int64_t tokens, const Block& block) {
  switch (vectors) {
    case 8:
      return MultiplyStrip<8>(tokens, block);
    case 4:
      return MultiplyStrip<4>(tokens, block);
    default:
      return MultiplyStrip<2>(tokens, block);
  }
}

// All tokens x `outputs`, a multiple of 16, of consecutive tiles of weights: the block of columns
// from pair `p` on, to which all.x points; all.w is the first tile's first pair.
void MultiplyBlock(const Block& all, int64_t tokens, int64_t pairs, int64_t p, int64_t outputs) {
  const int64_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
  const int widest = VectorsFor((tokens + tiles - 1) / tiles);
  for (int64_t first = 0; first < outputs; first += kTileRows) {
    const bool last = first + kTileRows >= outputs;
    Block block = all;
    block.w += (first / kTileRows * pairs + p) * kPairBytes;
    block.y += first;
    block.ahead = last ? all.w + (p + all.pairs) * kPairBytes : block.w + pairs * kPairBytes;
    for (int64_t left = (last ? outputs - first : kTileRows) / 8; left > 0;) {
      const int vectors = left >= widest ? widest : 2;
      MultiplyVectors(vectors, tokens, block);
      block.w += vectors * 32;
      block.y += vectors * 8;
      block.ahead += (vectors + 1) / 2 * all.pairs * kLineBytes;
      left -= vectors;
    }
  }
}

void MultiplyTiles(const float* x, int64_t x_stride, int64_t tokens, const char* weights,
                   int64_t pairs, int64_t outputs, float* y, int64_t y_stride) {
  const int64_t block_pairs = tokens == 1 ? pairs : kShortBlockPairs;
  for (int64_t p = 0; p < pairs; p += block_pairs) {
    const int64_t count = pairs - p < block_pairs ? pairs - p : block_pairs;
    MultiplyBlock({x + 2 * p, x_stride, weights, count, p == 0, y, y_stride, nullptr, 0, nullptr},
                  tokens, pairs, p, outputs);
  }
}

// The same of many tokens, by way of memory of its own, so that rows of activations and outputs lie
// together and not pages apart. With blocks of tokens and groups of tiles, kernels_bench: 256
// tokens 0.78 -> 0.87 of the peak, 512 tokens 0.76 -> 0.85.
void MultiplyCopies(const float* x, int64_t x_stride, int64_t tokens, const char* weights,
                    int64_t pairs, int64_t outputs, float* y, int64_t y_stride) {
  constexpr int64_t kXStride = 2 * kBlockPairs + 16;  // not a power of two: few cache sets
  constexpr int64_t kYStride = kGroupTiles * kTileRows + 16;
  alignas(64) static thread_local float x_copy[kBlockTokens * kXStride];
  alignas(64) static thread_local float y_copy[kBlockTokens * kYStride];
  for (int64_t p = 0; p < pairs; p += kBlockPairs) {
    const int64_t count = pairs - p < kBlockPairs ? pairs - p : kBlockPairs;
    for (int64_t t = 0; t < tokens; ++t) {
      std::memcpy(x_copy + t * kXStride, x + t * x_stride + 2 * p,
                  static_cast<size_t>(2 * count) * sizeof(float));
    }
    MultiplyBlock({x_copy, kXStride, weights, count, p == 0, y_copy, kYStride, nullptr, 0, nullptr},
                  tokens, pairs, p, outputs);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    std::memcpy(y + t * y_stride, y_copy + t * kYStride,
                static_cast<size_t>(outputs) * sizeof(float));
  }
}

// The last outputs of a tile, fewer than a strip: by way of sums of their own.
void MultiplyRest(const float* x, int64_t x_stride, int64_t tokens, const char* weights,
                  int64_t pairs, int64_t outputs, float* y, int64_t y_stride) {
  for (int64_t t = 0; t < tokens; t += kTileTokens) {
    const int64_t count = tokens - t < kTileTokens ? tokens - t : kTileTokens;
    float sums[kTileTokens * kStripOutputs] = {};
    MultiplyTiles(x + t * x_stride, x_stride, count, weights, pairs, kStripOutputs, sums,
                  kStripOutputs);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t o = 0; o < outputs; ++o) {
        y[(t + i) * y_stride + o] = sums[i * kStripOutputs + o];
      }
    }
  }
}

}  // namespace

void PackedProductAvx2(const void* activations, int64_t x_stride, int64_t tokens,
                       const PackedView& w, int64_t tile, int64_t tile_end, float* y,
                       int64_t y_stride) {
  const auto* const x = static_cast<const float*>(activations);
  const char* const weights = reinterpret_cast<const char*>(w.data) + tile * w.pairs * kPairBytes;
  const int64_t left = w.rows - tile * kTileRows, all = (tile_end - tile) * kTileRows;
  const int64_t outputs = left < all ? left : all;
  const int64_t whole = outputs / kStripOutputs * kStripOutputs;
  for (int64_t t = 0; t < tokens; t += kBlockTokens) {
    const float* const from = x + t * x_stride;
    float* const to = y + t * y_stride;
    const int64_t count = tokens - t < kBlockTokens ? tokens - t : kBlockTokens;
    const int64_t group = (tokens < kManyTokens ? 1 : kGroupTiles) * kTileRows;
    for (int64_t o = 0; o < whole; o += group) {
      const char* const of_group = weights + o / kTileRows * w.pairs * kPairBytes;
      const int64_t of_these = whole - o < group ? whole - o : group;
      if (tokens < kManyTokens) {
        MultiplyTiles(from, x_stride, count, of_group, w.pairs, of_these, to + o, y_stride);
      } else {
        MultiplyCopies(from, x_stride, count, of_group, w.pairs, of_these, to + o, y_stride);
      }
    }
    if (whole == outputs) continue;
    const int64_t rest = whole / kTileRows * w.pairs * kPairBytes + whole % kTileRows * 4;
    MultiplyRest(from, x_stride, count, weights + rest, w.pairs, outputs - whole, to + whole,
                 y_stride);
  }
}

}  // namespace engram::kernels::cpu

#else

namespace engram::kernels::cpu {

void PackedProductAvx2(const void* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                       int64_t tile, int64_t tile_end, float* y, int64_t y_stride) {
  PackedProductScalar(x, x_stride, tokens, w, tile, tile_end, y, y_stride);
}

}  // namespace engram::kernels::cpu
#endif
