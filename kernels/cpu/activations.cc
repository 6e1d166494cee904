// Norms fused with what follows them: the rounding for packed products, or the product itself.
#include "kernels/activations.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "common/base/check.h"
#include "kernels/reduce.h"

namespace engram::kernels {
namespace {

// Below this many values a norm is not worth a second thread.
constexpr int64_t kNormGrain = 8192;

}  // namespace

void RmsNormRows(Pool& pool, const float* x, int64_t x_stride, std::span<const float> weight,
                 float norm_eps, Activations& y) {
  CHECK_EQ(y.columns(), std::ssize(weight));
  const int64_t grain = std::max<int64_t>(1, kNormGrain / y.columns());
  pool.Run(y.count(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      RmsNorm({x + i * x_stride, weight.size()}, weight, norm_eps, y.row(i));
      y.RowIsComplete(i);
    }
  });
}

void Linear(Pool& pool, const Activations& x, const Matrix& w, std::span<float> y) {
  if (w.packed != nullptr) return LinearPacked(pool, x.rounded(), *w.packed, y);
  Linear(pool, x.values(), w, y);
}

void LinearAll(Pool& pool, const Activations& x, std::span<const Product> products) {
  const auto is_packed = [](const Product& one) { return one.w->packed != nullptr; };
  if (std::all_of(products.begin(), products.end(), is_packed)) {
    return LinearPacked(pool, x.rounded(), products);
  }
  for (const Product& one : products) {
    if (is_packed(one)) {
      LinearPacked(pool, x.rounded(), std::span(&one, 1));
    } else {
      Linear(pool, x.values(), *one.w, one.y, one.y_stride);
    }
  }
}

void NormedLinearRows(Rows x, std::span<const float> weight, float norm_eps, const Matrix& w,
                      float* y, int64_t y_stride, std::span<float> scratch) {
  const int64_t width = std::ssize(weight);
  CHECK(w.columns == width && std::ssize(scratch) >= kNormedTokens * width);
  for (int64_t first = 0; first < x.count; first += kNormedTokens) {
    const int64_t count = std::min(kNormedTokens, x.count - first);
    std::array<float, kNormedTokens> scales;
    for (int64_t t = 0; t < count; ++t) {
      const float* const from = x.data + (first + t) * x.stride;
      float* const to = scratch.data() + t * width;
      for (int64_t i = 0; i < width; ++i) to[i] = from[i] * weight[i];
      scales[t] = 1.0f / std::sqrt(Dot(from, from, width) / static_cast<float>(width) + norm_eps);
    }
    float* const out = y + first * y_stride;
    LinearRows({scratch.data(), count, width}, w, out, y_stride);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t o = 0; o < w.rows; ++o) out[t * y_stride + o] *= scales[t];
    }
  }
}

}  // namespace engram::kernels
