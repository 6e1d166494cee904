// Attention's scores: LinearRows of the same queries with page after page of keys, bit for bit, by
// way of queries laid out once: 16 of them beside each other, so that a register holds one lane of
// 8 queries and a key's value is broadcast. Plain types only, as in row_product.h.
#pragma once

#include <cstdint>

namespace engram::kernels::cpu {

inline constexpr int64_t kScoreQueries = 16;

// `to` [count rounded up to 16, columns], 32-byte aligned; absent queries are 0.
void LayOutQueriesAvx2(const float* x, int64_t x_stride, int64_t count, int64_t columns, float* to);

struct Keys {
  const float* data = nullptr;  // [rows, stride]
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;
  const float* next = nullptr;  // what will be read after them
};

// y[query * y_stride + row]; `queries` as laid out, `count` of them.
void ScoresAvx2(const float* queries, int64_t count, const Keys& keys, float* y, int64_t y_stride);

}  // namespace engram::kernels::cpu
