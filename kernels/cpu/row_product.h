// The two products over weights as stored (ops.h, LinearRows and TransposedRows) by AVX-512. Plain
// types only: this header is compiled under different instruction sets, so nothing inline may stand
// here.
#pragma once

#include <cstdint>

namespace engram::kernels::cpu {

struct StoredWeights {
  const void* data = nullptr;
  bool is_bf16 = false;  // else fp32
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;  // elements
  // What will be read next and is asked for meanwhile.
  const void* ahead = nullptr;
  int64_t ahead_lines = 0;  // of 64 bytes
};

struct Vectors {
  const float* data = nullptr;
  int64_t count = 0;
  int64_t stride = 0;
};

void LinearRowsAvx512(const Vectors& x, const StoredWeights& w, float* y, int64_t y_stride);
void TransposedRowsAvx512(const Vectors& x, const StoredWeights& w, float* y, int64_t y_stride);

}  // namespace engram::kernels::cpu
