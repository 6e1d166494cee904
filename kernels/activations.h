// What the matrix products of one sublayer read: its input, and the same rounded to bf16 once for
// all products over packed weights. Norms write it row by row, so that nobody reads the input again
// to round it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "kernels/packed.h"

namespace engram::kernels {

class Activations {
 public:
  // Room for `count` rows of `columns`; the memory is reused from call to call. Rows may be filled
  // by several threads, one each.
  void Resize(int64_t count, int64_t columns);
  std::span<float> row(int64_t i) {
    return std::span(values_).subspan(static_cast<size_t>(i * columns_),
                                      static_cast<size_t>(columns_));
  }
  void RowIsComplete(int64_t i) { rounded_.RoundPart(i, 0, row(i)); }

  std::span<const float> values() const { return values_; }  // [count, columns]
  const RoundedActivations& rounded() const { return rounded_; }
  int64_t count() const { return rounded_.count(); }
  int64_t columns() const { return columns_; }

 private:
  std::vector<float> values_;
  RoundedActivations rounded_;
  int64_t columns_ = 0;
};

// Row i of y <- RmsNorm of row i of x [count, weight.size()], which may be fewer values than x's
// rows have: they are `x_stride` apart.
void RmsNormRows(Pool& pool, const float* x, int64_t x_stride, int64_t count,
                 std::span<const float> weight, float norm_eps, Activations& y);

// Linear (ops.h) of activations that are rounded already.
void Linear(Pool& pool, const Activations& x, const Matrix& w, std::span<float> y);

// y[t * y_stride + o] = sum_c (x[t, c] weight[c]) w[o, c] / sqrt(mean(x[t]^2) + eps): RmsNorm and
// LinearRows with the squares summed in the same pass over x. |error| <= (columns/16 + 8 +
// columns/32) eps * sum |x weight w| / the root.
void NormedLinearRows(Rows x, std::span<const float> weight, float norm_eps, const Matrix& w,
                      float* y, int64_t y_stride);

}  // namespace engram::kernels
