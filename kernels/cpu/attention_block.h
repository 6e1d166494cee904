// What attention does with a block's scores and sums, by AVX-512, bit for bit as cpu/attention.cc
// does it otherwise. Plain types only, as in row_product.h.
#pragma once

#include <cstdint>

namespace engram::kernels::cpu {

// Of each row of `count` scores, rows `stride` apart: largest[row], scores <- exp((score - largest)
// * scale), sums[row]: ExpScaled (ops.h).
void ExpRowsAvx512(float* scores, int64_t rows, int64_t count, int64_t stride, float scale,
                   float* largest, float* sums);

// sum[i] <- sum[i] * keep + more[i] * take.
void CombineAvx512(float* sum, float keep, const float* more, float take, int64_t count);

}  // namespace engram::kernels::cpu
