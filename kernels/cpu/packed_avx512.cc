// Packed bf16 weights by AVX-512: each bf16 widened, the even column of a pair added before the odd
// one, by fused multiply-add: bit-identical to the scalar and the AVX2 version. Intel's processors
// multiply so twice as fast as by their bf16 instruction (isa.h).
//
// Tiles of up to 6 tokens x 64 outputs or 12 x 32 keep their sums in registers. Up to 12 tokens
// widen the weights as they come; of more, the first tile of tokens leaves a block's widened
// weights to the others, which are then nothing but loads and multiply-adds.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/packed_product.h"

namespace engram::kernels::cpu {
namespace {

constexpr int64_t kFewTokens = 6;    // at most, of a tile as wide as the packed ones
constexpr int64_t kHalfTokens = 12;  // of half of one
constexpr int64_t kHalfRows = kTileRows / 2;
constexpr int64_t kPairBytes = kTileRows * 4;  // of one tile's weights of one pair of columns
constexpr int64_t kLineBytes = 64;
constexpr int64_t kAheadBytes = 32 * kPairBytes;
// Columns of a block. Two halves of a tile share the packed weights (8 KiB, from the first-level
// cache); of many tokens the widened ones of a half take 32 KiB of its 48 (256 tokens by 32, 64, 96
// and 128 pairs: 139, 146, 150, 152 GFLOP/s).
constexpr int64_t kShortBlockPairs = 32;
constexpr int64_t kBlockPairs = 128;
// Tiles that share a copy of the activations (2: 140, 4: 142, 8: 154, 16: 153 GFLOP/s), and tokens
// whose copies lie in the second-level cache.
constexpr int64_t kGroupTiles = 8;
constexpr int64_t kBlockTokens = 96;

struct Tile {
  const float* x;
  int64_t x_stride;
  const char* w;  // of the first pair, the first output
  int64_t pairs;
  bool first;  // nothing to add to yet
  float* y;
  int64_t y_stride;
  const __mmask16* masks;  // of the outputs that exist
  const char* ahead;       // the first line to be asked for, of the next block
  float* wide;             // [2 * pairs, outputs]
};

__m512 Even(__m512i pair) { return _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)); }
__m512 Odd(__m512i pair) {
  return _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(-65536)));
}

// A tile of tokens x 16 kVectors outputs, from the packed weights (kPackedKeep: which are left,
// widened) or from the widened ones. kLines: how many lines it asks for with each pair.
enum class From { kPacked, kPackedKeep, kWide };

template <int kTokens, int kVectors, From kFrom, int kLines>
void MultiplyTile(const Tile& tile) {
  __m512 sum[kTokens][kVectors];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sum[t][v] = tile.first
                      ? _mm512_setzero_ps()
                      : _mm512_maskz_loadu_ps(tile.masks[v], tile.y + t * tile.y_stride + 16 * v);
    }
  }
  const char* w = tile.w;
  const char* ahead = tile.ahead;
  const float* x = tile.x;
  float* wide = tile.wide;
  for (int64_t p = 0; p < tile.pairs; ++p, w += kPairBytes, ahead += kLineBytes * kLines, x += 2) {
#pragma GCC unroll 4
    for (int line = 0; line < kLines; ++line) _mm_prefetch(ahead + kLineBytes * line, _MM_HINT_T1);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i, wide += 16 * kVectors) {  // the columns of the pair
      __m512 weights[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (kFrom == From::kWide) {
          weights[v] = _mm512_load_ps(wide + 16 * v);
        } else {
          const __m512i pair = _mm512_loadu_si512(w + 64 * v);
          weights[v] = i == 0 ? Even(pair) : Odd(pair);
        }
        if constexpr (kFrom == From::kPackedKeep) _mm512_store_ps(wide + 16 * v, weights[v]);
      }
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const __m512 of_token = _mm512_set1_ps(x[t * tile.x_stride + i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sum[t][v] = _mm512_fmadd_ps(of_token, weights[v], sum[t][v]);
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      _mm512_mask_storeu_ps(tile.y + t * tile.y_stride + 16 * v, tile.masks[v], sum[t][v]);
    }
  }
}

// Up to 6 tokens x 64 outputs.
void MultiplyFew(int64_t tokens, const Tile& tile) {
  switch (tokens) {
    case 1:
      return MultiplyTile<1, 4, From::kPacked, 4>(tile);
    case 2:
      return MultiplyTile<2, 4, From::kPacked, 4>(tile);
    case 3:
      return MultiplyTile<3, 4, From::kPacked, 4>(tile);
    case 4:
      return MultiplyTile<4, 4, From::kPacked, 4>(tile);
    case 5:
      return MultiplyTile<5, 4, From::kPacked, 4>(tile);
    default:
      return MultiplyTile<6, 4, From::kPacked, 4>(tile);
  }
}

// 6 to 12 tokens x 32 outputs.
template <From kFrom, int kLines>
void MultiplyHalf(int64_t tokens, const Tile& tile) {
  switch (tokens) {
    case 6:
      return MultiplyTile<6, 2, kFrom, kLines>(tile);
    case 7:
      return MultiplyTile<7, 2, kFrom, kLines>(tile);
    case 8:
      return MultiplyTile<8, 2, kFrom, kLines>(tile);
    case 9:
      return MultiplyTile<9, 2, kFrom, kLines>(tile);
    case 10:
      return MultiplyTile<10, 2, kFrom, kLines>(tile);
    case 11:
      return MultiplyTile<11, 2, kFrom, kLines>(tile);
    default:
      return MultiplyTile<12, 2, kFrom, kLines>(tile);
  }
}

// More than 12 tokens x 32 outputs of one block of columns. The first two tiles of tokens ask for
// half of the next block's weights each (the second for all: 64 tokens 152 instead of 155 GFLOP/s).
void MultiplyMany(int64_t tokens, Tile block) {
  alignas(64) float wide[2 * kBlockPairs * kHalfRows];
  block.wide = wide;
  const int64_t tiles = (tokens + kHalfTokens - 1) / kHalfTokens;
  const float* const x = block.x;
  float* const y = block.y;
  for (int64_t tile = 0; tile < tiles; ++tile) {  // of sizes that differ by one at most
    const int64_t first = tokens * tile / tiles;
    const int64_t count = tokens * (tile + 1) / tiles - first;
    block.x = x + first * block.x_stride;
    block.y = y + first * block.y_stride;
    if (tile == 0) {
      MultiplyHalf<From::kPackedKeep, 1>(count, block);
      block.ahead += block.pairs * kLineBytes;
    } else if (tile == 1) {
      MultiplyHalf<From::kWide, 1>(count, block);
    } else {
      MultiplyHalf<From::kWide, 0>(count, block);
    }
  }
}

// Both halves of 64 outputs; each asks for half of what comes next.
template <typename Multiply>
void BothHalves(Tile block, const Multiply& multiply) {
  multiply(block);
  block.w += kPairBytes / 2;
  block.y += kHalfRows;
  block.masks += 2;
  block.ahead += block.pairs * kPairBytes / 2;
  multiply(block);
}

void MasksOf(int64_t outputs, __mmask16* masks) {
  for (int64_t j = 0; j < 4; ++j) {
    const int64_t left = outputs - 16 * j;
    masks[j] = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
  }
}

void FewTokens(const float* x, int64_t x_stride, int64_t tokens, const PackedView& w, int64_t tile,
               float* y, int64_t y_stride) {
  const char* const weights = reinterpret_cast<const char*>(w.data) + tile * w.pairs * kPairBytes;
  __mmask16 masks[4];
  MasksOf(w.rows - tile * kTileRows, masks);
  if (tokens <= kFewTokens) {
    return MultiplyFew(tokens, {x, x_stride, weights, w.pairs, true, y, y_stride, masks,
                                weights + kAheadBytes, nullptr});
  }
  for (int64_t p = 0; p < w.pairs; p += kShortBlockPairs) {
    const int64_t pairs = w.pairs - p < kShortBlockPairs ? w.pairs - p : kShortBlockPairs;
    const char* const from = weights + p * kPairBytes;
    BothHalves({x + 2 * p, x_stride, from, pairs, p == 0, y, y_stride, masks,
                from + pairs * kPairBytes, nullptr},
               [&](const Tile& half) { MultiplyHalf<From::kPacked, 2>(tokens, half); });
  }
}

// By way of memory of its own, so that rows of activations and outputs lie together and not pages
// apart.
void ManyTokens(const float* x, int64_t x_stride, int64_t tokens, const PackedView& w, int64_t tile,
                int64_t tiles, float* y, int64_t y_stride) {
  constexpr int64_t kXStride = 2 * kBlockPairs + 16;  // not a power of two: few cache sets
  constexpr int64_t kYStride = kGroupTiles * kTileRows + 16;
  static constexpr __mmask16 kAll[] = {0xffff, 0xffff, 0xffff, 0xffff};
  alignas(64) static thread_local float x_copy[kBlockTokens * kXStride];
  alignas(64) static thread_local float y_copy[kBlockTokens * kYStride];
  const char* const weights = reinterpret_cast<const char*>(w.data) + tile * w.pairs * kPairBytes;
  for (int64_t p = 0; p < w.pairs; p += kBlockPairs) {
    const int64_t pairs = w.pairs - p < kBlockPairs ? w.pairs - p : kBlockPairs;
    for (int64_t t = 0; t < tokens; ++t) {
      std::memcpy(x_copy + t * kXStride, x + t * x_stride + 2 * p,
                  static_cast<size_t>(2 * pairs) * sizeof(float));
    }
    for (int64_t i = 0; i < tiles; ++i) {
      const char* const from = weights + (i * w.pairs + p) * kPairBytes;
      const char* const ahead =
          i + 1 < tiles ? from + w.pairs * kPairBytes : weights + (p + pairs) * kPairBytes;
      BothHalves({x_copy, kXStride, from, pairs, p == 0, y_copy + i * kTileRows, kYStride, kAll,
                  ahead, nullptr},
                 [&](const Tile& half) { MultiplyMany(tokens, half); });
    }
  }
  const int64_t left = w.rows - tile * kTileRows, all = tiles * kTileRows;
  for (int64_t t = 0; t < tokens; ++t) {
    std::memcpy(y + t * y_stride, y_copy + t * kYStride,
                static_cast<size_t>(left < all ? left : all) * sizeof(float));
  }
}

}  // namespace

void PackedProductAvx512(const void* activations, int64_t x_stride, int64_t tokens,
                         const PackedView& w, int64_t tile, int64_t tile_end, float* y,
                         int64_t y_stride) {
  const auto* const x = static_cast<const float*>(activations);
  if (tokens <= kHalfTokens) {
    for (; tile < tile_end; ++tile, y += kTileRows) {
      FewTokens(x, x_stride, tokens, w, tile, y, y_stride);
    }
    return;
  }
  const int64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
  for (int64_t block = 0; block < blocks; ++block) {  // of sizes that differ by one at most
    const int64_t t = tokens * block / blocks;
    const int64_t count = tokens * (block + 1) / blocks - t;
    for (int64_t i = tile; i < tile_end; i += kGroupTiles) {
      const int64_t tiles = tile_end - i < kGroupTiles ? tile_end - i : kGroupTiles;
      ManyTokens(x + t * x_stride, x_stride, count, w, i, tiles,
                 y + t * y_stride + (i - tile) * kTileRows, y_stride);
    }
  }
}

}  // namespace engram::kernels::cpu
