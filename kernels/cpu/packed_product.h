// The inner loops over packed bf16 weights, one version for each Isa. Plain types only: this header
// is compiled under different instruction sets, so nothing inline may stand here.
#pragma once

#include <cstdint>

namespace engram::kernels::cpu {

inline constexpr int64_t kTileRows = 64;  // output columns of one tile

// Weights w [rows, columns]: for each tile of 64 rows, for each pair of columns, 64 x 2 bf16; rows
// and columns are filled up with zeros.
struct PackedView {
  const uint16_t* data = nullptr;
  int64_t rows = 0;
  int64_t pairs = 0;  // of columns
};

// y[t * y_stride + o - 64 * tile] = sum over pairs, ascending, of x[t] w[o], for t in [0, tokens)
// and the outputs o of tiles [tile, tile_end); fp32 accumulation from 0. Within one Isa an output's
// bits depend on its own x and w alone. x rows are `x_stride` values apart and 2 * pairs long:
// activations rounded to bf16, as bf16 where the processor multiplies those (AVX-512-BF16), else as
// the floats they are, so that no tile widens them again.
using PackedProduct = void (*)(const void* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                               int64_t tile, int64_t tile_end, float* y, int64_t y_stride);
void PackedProductScalar(const void* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                         int64_t tile, int64_t tile_end, float* y, int64_t y_stride);
void PackedProductAvx2(const void* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                       int64_t tile, int64_t tile_end, float* y, int64_t y_stride);
void PackedProductAvx512(const void* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                         int64_t tile, int64_t tile_end, float* y, int64_t y_stride);
void PackedProductAvx512Bf16(const void* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                             int64_t tile, int64_t tile_end, float* y, int64_t y_stride);

// `count` floats rounded to bf16, to nearest even, as the product reads them: floats, or bf16 by
// AVX-512-BF16, which makes denormals zero.
using RoundRow = void (*)(const float* x, int64_t count, void* y);
void RoundRowFloats(const float* x, int64_t count, void* y);
void RoundRowBf16(const float* x, int64_t count, void* y);

// What one Isa multiplies with.
struct PackedVersion {
  PackedProduct product = nullptr;
  RoundRow round = nullptr;
  int64_t value_bytes = 0;  // of an activation
};

}  // namespace engram::kernels::cpu
