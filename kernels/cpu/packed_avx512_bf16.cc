// Packed bf16 weights by AVX-512-BF16: tiles of 6 tokens x 64 outputs, 24 accumulators. More than 6
// tokens take the columns in blocks whose weights (32 KiB) stay in the first-level cache while
// every tile of tokens passes over them; fewer stream the weights once. Both add the same pairs in
// the same order.
#include <immintrin.h>

#include "kernels/cpu/packed_product.h"

namespace engram::kernels::cpu {
namespace {

constexpr int64_t kTileTokens = 6;
constexpr int64_t kBlockPairs = 96;
// From 48 tokens on storing and loading sums between blocks costs more than weights from the
// second-level cache (64 tokens: 0.84 -> 0.88 of the peak; shorter blocks for fewer: 16 tokens:
// 0.75 -> 0.82).
constexpr int64_t kLongBlockPairs = 256;
constexpr int64_t kManyTokens = 48;
// Up to two tiles of tokens are bound by memory or nearly so: short blocks, so that what a tile has
// asked for is used soon (8 tokens: 0.76 -> 0.93 of the stream).
constexpr int64_t kShortBlockPairs = 32;
constexpr int64_t kPairBytes = kTileRows * 4;  // of one tile's weights of one pair of columns
constexpr int64_t kAheadBytes = kShortBlockPairs * kPairBytes;

// Which weights a tile of tokens asks for while it computes: those it comes to itself, or some
// lines of each pair of the next block's.
enum class Fetch { kNothing, kOwn, kNextOne, kNextTwo };

struct Tile {
  const uint16_t* x;
  int64_t x_stride;
  const uint16_t* w;
  int64_t pairs;
  bool first;  // nothing to add to yet
  float* y;
  int64_t y_stride;
  const __mmask16* masks;  // of the outputs that exist
  const char* ahead;       // the first line to be fetched of the next block
};

template <int kTokens, Fetch kFetch>
void MultiplyTile(const Tile& tile) {
  __m512 sum[kTokens][4];
  for (int t = 0; t < kTokens; ++t) {
    for (int j = 0; j < 4; ++j) {
      sum[t][j] = tile.first
                      ? _mm512_setzero_ps()
                      : _mm512_maskz_loadu_ps(tile.masks[j], tile.y + t * tile.y_stride + 16 * j);
    }
  }
  const char* w = reinterpret_cast<const char*>(tile.w);
  for (int64_t p = 0; p < tile.pairs; ++p, w += kPairBytes) {
    if constexpr (kFetch == Fetch::kOwn) {
      for (int line = 0; line < 4; ++line) {
        _mm_prefetch(w + kAheadBytes + 64 * line, _MM_HINT_T0);
      }
    } else if constexpr (kFetch != Fetch::kNothing) {
      _mm_prefetch(tile.ahead + p * kPairBytes, _MM_HINT_T1);
      if constexpr (kFetch == Fetch::kNextTwo) {
        _mm_prefetch(tile.ahead + p * kPairBytes + 64, _MM_HINT_T1);
      }
    }
    __m512bh weights[4];
    for (int j = 0; j < 4; ++j) {
      weights[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + 64 * j));
    }
    for (int t = 0; t < kTokens; ++t) {
      int pair;
      __builtin_memcpy(&pair, tile.x + t * tile.x_stride + 2 * p, sizeof(pair));
      const auto both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      for (int j = 0; j < 4; ++j) sum[t][j] = _mm512_dpbf16_ps(sum[t][j], both, weights[j]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int j = 0; j < 4; ++j) {
      _mm512_mask_storeu_ps(tile.y + t * tile.y_stride + 16 * j, tile.masks[j], sum[t][j]);
    }
  }
}

template <Fetch kFetch>
void MultiplyTokens(int64_t tokens, const Tile& tile) {
  switch (tokens) {
    case 1:
      return MultiplyTile<1, kFetch>(tile);
    case 2:
      return MultiplyTile<2, kFetch>(tile);
    case 3:
      return MultiplyTile<3, kFetch>(tile);
    case 4:
      return MultiplyTile<4, kFetch>(tile);
    case 5:
      return MultiplyTile<5, kFetch>(tile);
    default:
      return MultiplyTile<6, kFetch>(tile);
  }
}

}  // namespace

void PackedProductAvx512Bf16(const void* activations, int64_t x_stride, int64_t tokens,
                             const PackedView& w, int64_t tile, int64_t tile_end, float* y,
                             int64_t y_stride) {
  const auto* const x = static_cast<const uint16_t*>(activations);
  for (; tile < tile_end; ++tile, y += kTileRows) {
    const int64_t outputs = w.rows - tile * kTileRows;
    __mmask16 masks[4];
    for (int64_t j = 0; j < 4; ++j) {
      const int64_t left = outputs - 16 * j;
      masks[j] = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
    }
    const uint16_t* const weights = w.data + tile * w.pairs * kTileRows * 2;
    if (tokens <= kTileTokens) {
      MultiplyTokens<Fetch::kOwn>(
          tokens, {x, x_stride, weights, w.pairs, true, y, y_stride, masks, nullptr});
      continue;
    }
    const bool two_tiles = tokens <= 2 * kTileTokens;
    const int64_t block_pairs = two_tiles              ? kShortBlockPairs
                                : tokens < kManyTokens ? kBlockPairs
                                                       : kLongBlockPairs;
    const int64_t tile_tokens = two_tiles ? (tokens + 1) / 2 : kTileTokens;
    for (int64_t p = 0; p < w.pairs; p += block_pairs) {
      const int64_t pairs = w.pairs - p < block_pairs ? w.pairs - p : block_pairs;
      for (int64_t t = 0; t < tokens; t += tile_tokens) {
        const int64_t count = tokens - t < tile_tokens ? tokens - t : tile_tokens;
        const uint16_t* const from = weights + p * kTileRows * 2;
        Tile block{x + t * x_stride + 2 * p,
                   x_stride,
                   from,
                   pairs,
                   p == 0,
                   y + t * y_stride,
                   y_stride,
                   masks,
                   reinterpret_cast<const char*>(from) + block_pairs * kPairBytes};
        // Weights of the next block are asked for by the tiles of tokens behind the first one,
        // which finds its own late; of two tiles by both. A line or two of each pair, so that none
        // of them asks for more than memory gives (64 tokens: 0.77 -> 0.84 of the peak; 16: 0.65 ->
        // 0.75; 8 on Emerald Rapids: 7.2 -> 8.7 GB/s).
        const int64_t fetcher = t / tile_tokens - (two_tiles ? 0 : 1);
        if (t == 0 && p == 0) {
          MultiplyTokens<Fetch::kOwn>(count, block);
        } else if (tokens > 4 * kTileTokens && fetcher >= 0 && fetcher < 4) {
          block.ahead += 64 * fetcher;
          MultiplyTokens<Fetch::kNextOne>(count, block);
        } else if (tokens <= 4 * kTileTokens && fetcher >= 0 && fetcher < 2) {
          block.ahead += 128 * fetcher;
          MultiplyTokens<Fetch::kNextTwo>(count, block);
        } else {
          MultiplyTokens<Fetch::kNothing>(count, block);
        }
      }
    }
  }
}

void RoundRowBf16(const float* x, int64_t count, void* rounded) {
  auto* const y = static_cast<uint16_t*>(rounded);
  for (int64_t i = 0; i < count; i += 16) {
    const int64_t left = count - i;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
    const __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
    _mm256_mask_storeu_epi16(y + i, mask, reinterpret_cast<__m256i>(half));
  }
}

}  // namespace engram::kernels::cpu
