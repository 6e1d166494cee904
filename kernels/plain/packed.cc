// The product over packed weights, written out.
#include <cmath>

#include "common/base/types.h"
#include "kernels/cpu/packed_product.h"

namespace engram::kernels::cpu {

void PackedProductScalar(const void* x, int64_t x_stride, int64_t tokens, const PackedView& w,
                         int64_t tile, int64_t tile_end, float* y, int64_t y_stride) {
  const auto* const activations = static_cast<const float*>(x);
  const int64_t first = tile * kTileRows;
  for (int64_t o = first; o < tile_end * kTileRows && o < w.rows; ++o) {
    const uint16_t* const weights =
        w.data + o / kTileRows * w.pairs * kTileRows * 2 + o % kTileRows * 2;
    for (int64_t t = 0; t < tokens; ++t) {
      float sum = 0;
      for (int64_t p = 0; p < w.pairs; ++p) {
        for (int64_t i = 0; i < 2; ++i) {
          sum = std::fma(activations[t * x_stride + 2 * p + i],
                         ToFloat(Bf16{weights[p * kTileRows * 2 + i]}), sum);
        }
      }
      y[t * y_stride + o - first] = sum;
    }
  }
}

void RoundRowFloats(const float* x, int64_t count, void* y) {
  auto* const rounded = static_cast<float*>(y);
  for (int64_t i = 0; i < count; ++i) rounded[i] = ToFloat(ToBf16(x[i]));
}

}  // namespace engram::kernels::cpu
