// The matrix products as specified: the summation order of ops.h, written out.
#include <algorithm>
#include <cstring>

#include "common/base/check.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"

namespace engram::kernels {

Matrix MatrixOf(std::span<const float> values, int64_t rows, int64_t columns) {
  CHECK_EQ(static_cast<int64_t>(values.size()), rows * columns);
  return {reinterpret_cast<const std::byte*>(values.data()),
          DType::kF32,
          rows,
          columns,
          columns,
          nullptr};
}

Matrix MatrixOf(std::span<const Bf16> values, int64_t rows, int64_t columns) {
  CHECK_EQ(static_cast<int64_t>(values.size()), rows * columns);
  return {reinterpret_cast<const std::byte*>(values.data()),
          DType::kBf16,
          rows,
          columns,
          columns,
          nullptr};
}

void DecodeWeights(const Matrix& w, int64_t row, std::span<float> values) {
  CHECK_EQ(static_cast<int64_t>(values.size()), w.columns);
  CHECK(row >= 0 && row < w.rows) << "row " << row << " of " << w.rows;
  const std::byte* from = w.row(row);
  if (w.dtype == DType::kF32) {
    std::memcpy(values.data(), from, values.size_bytes());
    return;
  }
  CHECK(w.dtype == DType::kBf16) << DTypeName(w.dtype);
  for (size_t i = 0; i < values.size(); ++i) {
    Bf16 value;
    std::memcpy(&value, from + i * sizeof(value), sizeof(value));
    values[i] = ToFloat(value);
  }
}

namespace ref {

void LinearRows(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  std::vector<float> weights(static_cast<size_t>(w.columns));
  for (int64_t o = 0; o < w.rows; ++o) {
    DecodeWeights(w, o, weights);
    for (int64_t t = 0; t < x.count; ++t) {
      y[t * y_stride + o] = Dot(x.data + t * x.stride, weights.data(), w.columns);
    }
  }
}

void TransposedRows(Rows x, const Matrix& w, float* y, int64_t y_stride) {
  std::vector<float> weights(static_cast<size_t>(w.columns));
  for (int64_t t = 0; t < x.count; ++t) std::fill_n(y + t * y_stride, w.columns, 0.0f);
  for (int64_t r = 0; r < w.rows; ++r) {
    DecodeWeights(w, r, weights);
    for (int64_t t = 0; t < x.count; ++t) {
      const float scale = x.data[t * x.stride + r];
      float* out = y + t * y_stride;
      for (int64_t c = 0; c < w.columns; ++c) {
        out[c] = std::fma(scale, weights[static_cast<size_t>(c)], out[c]);
      }
    }
  }
}

}  // namespace ref
}  // namespace engram::kernels
