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
// Tokens whose scaled values wait in the second-level cache for their product.
constexpr int64_t kTokensAtOnce = 6;

}  // namespace

void Activations::Resize(int64_t count, int64_t columns) {
  columns_ = columns;
  values_.resize(static_cast<size_t>(count * columns));
  rounded_.Resize(count, columns);
}

void RmsNormRows(Pool& pool, const float* x, int64_t x_stride, int64_t count,
                 std::span<const float> weight, float norm_eps, Activations& y) {
  const auto width = static_cast<int64_t>(weight.size());
  y.Resize(count, width);
  pool.Run(count, std::max<int64_t>(1, kNormGrain / width), [&](int64_t begin, int64_t end) {
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

void NormedLinearRows(Rows x, std::span<const float> weight, float norm_eps, const Matrix& w,
                      float* y, int64_t y_stride) {
  const auto width = static_cast<int64_t>(weight.size());
  CHECK_EQ(w.columns, width);
  static thread_local std::vector<float> weighted;
  weighted.resize(static_cast<size_t>(kTokensAtOnce * width));
  for (int64_t first = 0; first < x.count; first += kTokensAtOnce) {
    const int64_t count = std::min(kTokensAtOnce, x.count - first);
    std::array<float, kTokensAtOnce> scales;
    for (int64_t t = 0; t < count; ++t) {
      const float* const from = x.data + (first + t) * x.stride;
      float* const to = weighted.data() + t * width;
      std::array<float, kLanes> lanes{};
      int64_t i = 0;
      for (; i + kLanes <= width; i += kLanes) {
        for (int64_t l = 0; l < kLanes; ++l) {
          const float value = from[i + l];
          lanes[static_cast<size_t>(l)] = std::fma(value, value, lanes[static_cast<size_t>(l)]);
          to[i + l] = value * weight[static_cast<size_t>(i + l)];
        }
      }
      for (int64_t l = 0; i + l < width; ++l) {
        const float value = from[i + l];
        lanes[static_cast<size_t>(l)] = std::fma(value, value, lanes[static_cast<size_t>(l)]);
        to[i + l] = value * weight[static_cast<size_t>(i + l)];
      }
      const float mean = FoldLanes(lanes) / static_cast<float>(width);
      scales[static_cast<size_t>(t)] = 1.0f / std::sqrt(mean + norm_eps);
    }
    float* const out = y + first * y_stride;
    LinearRows({weighted.data(), count, width}, w, out, y_stride);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t o = 0; o < w.rows; ++o) out[t * y_stride + o] *= scales[static_cast<size_t>(t)];
    }
  }
}

}  // namespace engram::kernels
