// What the matrix products of one sublayer read: its input, and the same rounded to bf16 once for
// all products over packed weights. Norms write it row by row, so that no product reads the input
// again to round it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "kernels/packed.h"

namespace engram::kernels {

class Activations {
 public:
  Activations() = default;
  // Room for `count` rows of `columns`. Rows may be filled by several threads, one each.
  Activations(Workspace& memory, int64_t count, int64_t columns)
      : values_(memory.Take<float>(count * columns)), rounded_(memory, count, columns) {}
  std::span<float> row(int64_t i) { return values_.subspan(i * columns(), columns()); }
  void RowIsComplete(int64_t i) { rounded_.RoundPart(i, 0, row(i)); }

  std::span<const float> values() const { return values_; }  // [count, columns]
  const RoundedActivations& rounded() const { return rounded_; }
  int64_t count() const { return rounded_.count(); }
  int64_t columns() const { return rounded_.columns(); }

 private:
  std::span<float> values_;
  RoundedActivations rounded_;
};

// Row i of y <- RmsNorm of row i of x, whose rows are `x_stride` apart and may be longer than y's.
void RmsNormRows(Pool& pool, const float* x, int64_t x_stride, std::span<const float> weight,
                 float norm_eps, Activations& y);

// Linear (ops.h) of activations that are rounded already.
void Linear(Pool& pool, const Activations& x, const Matrix& w, std::span<float> y);

// Several products of the same activations, in one loop where all are packed.
void LinearAll(Pool& pool, const Activations& x, std::span<const Product> products);

// y[t * y_stride + o] = sum_c (x[t, c] weight[c]) w[o, c] / sqrt(mean(x[t]^2) + eps): RmsNorm and
// LinearRows, a few rows at a time. |error| <= (columns/16 + 8 +
// columns/32) eps * sum |x weight w| / the root. `scratch`: kNormedTokens * columns.
inline constexpr int64_t kNormedTokens = 6;  // whose scaled values wait in the second-level cache
void NormedLinearRows(Rows x, std::span<const float> weight, float norm_eps, const Matrix& w,
                      float* y, int64_t y_stride, std::span<float> scratch);

}  // namespace engram::kernels
