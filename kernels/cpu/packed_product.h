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
// bits depend on its own x and w alone. x rows are `x_stride` bf16 apart and 2 * pairs long.
using PackedProduct = void (*)(const uint16_t* x, int64_t x_stride, int64_t tokens,
                               const PackedView& w, int64_t tile, int64_t tile_end, float* y,
                               int64_t y_stride);
void PackedProductScalar(const uint16_t* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                         int64_t tile, int64_t tile_end, float* y, int64_t y_stride);
void PackedProductAvx2(const uint16_t* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                       int64_t tile, int64_t tile_end, float* y, int64_t y_stride);
void PackedProductAvx512(const uint16_t* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                         int64_t tile, int64_t tile_end, float* y, int64_t y_stride);

// bf16 of `count` floats, to nearest even. The AVX-512 one makes denormals zero.
using ToBf16Row = void (*)(const float* x, int64_t count, uint16_t* y);
void ToBf16RowScalar(const float* x, int64_t count, uint16_t* y);
void ToBf16RowAvx512(const float* x, int64_t count, uint16_t* y);

}  // namespace engram::kernels::cpu
