// The CUDA kernels over device memory: each call puts its work on `stream` and returns. Plain
// types; shapes as in ops.h. The caller checks cudaGetLastError.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace engram::kernels::cuda {

inline constexpr int kNgramMax = 8;

struct HashRule {
  int ngram_size = 0;       // N
  int heads_per_order = 0;  // K
  uint64_t pad = 0;
  uint64_t multipliers[kNgramMax] = {};
  const uint64_t* primes = nullptr;   // device, [H]
  const uint64_t* offsets = nullptr;  // device, [H]
};
// `ids` and `live` begin with the N - 1 tokens before (dead where there are none); rows [tokens,
// H].
void HashRows(const HashRule& rule, const int64_t* ids, const uint8_t* live, int64_t tokens,
              uint64_t* rows, cudaStream_t stream);

// rows [count, 2 dim bytes] -> values [count, dim].
void DecodeBf16(const uint8_t* rows, int64_t count, int dim, float* values, cudaStream_t stream);
// rows [count, dim + dim / 32 bytes], or dim bytes without scales; dim a multiple of 32.
void DecodeFp8(const uint8_t* rows, int64_t count, int dim, bool scaled, float* values,
               cudaStream_t stream);

struct PaperShape {
  int64_t tokens = 0, streams = 0, width = 0;
  int64_t kernel = 0, dilation = 0;
  int64_t history_rows = 0;  // (kernel - 1) * dilation, of streams * width each
};
// Gate, value and norm: u [T, G, D] and normed [history_rows + T, G, D], whose history the caller
// has put there.
void PaperGate(const PaperShape& shape, const float* keys, const float* value, const uint8_t* live,
               const float* key_norm, const float* query_norm, const float* conv_norm,
               const float* h, float* u, float* normed, cudaStream_t stream);
// h += u + SiLU(conv(normed)).
void PaperConvolve(const PaperShape& shape, const float* conv, const float* u, const float* normed,
                   float* h, cudaStream_t stream);
// h += gate * value; kv [T, G * D + D].
void FuseV41(int64_t tokens, int64_t streams, int64_t width, float norm_eps, const float* kv,
             const float* qk_weight, const uint8_t* live, float* h, cudaStream_t stream);

}  // namespace engram::kernels::cuda
