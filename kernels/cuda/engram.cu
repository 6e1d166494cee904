// The Engram operations as CUDA kernels: a thread an address, a warp a row, a block a (token,
// stream) with every reduction it needs in one pass over its inputs.
#include "kernels/cuda/launch.h"

namespace engram::kernels::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kWarp = 32;
constexpr float kPaperNormEps = 1.1920929e-07f;
constexpr float kPaperConvNormEps = 1e-5f;

unsigned Blocks(int64_t work, int each) { return static_cast<unsigned>((work + each - 1) / each); }

__device__ uint64_t FloorModulo(uint64_t mix, uint64_t prime) {
  if (static_cast<int64_t>(mix) >= 0) return mix % prime;
  return prime - 1 - ~mix % prime;
}

// A thread a (token, column): the few multiplications of an order are cheaper than sharing them.
__global__ void HashKernel(HashRule rule, const int64_t* ids, const uint8_t* live, int64_t tokens,
                           uint64_t* rows) {
  const int columns = (rule.ngram_size - 1) * rule.heads_per_order;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= tokens * columns) return;
  const int column = static_cast<int>(i % columns);
  const int64_t here = i / columns + rule.ngram_size - 1;
  const int order = column / rule.heads_per_order + 2;
  bool reachable = live[here] != 0;
  uint64_t mix = (reachable ? static_cast<uint64_t>(ids[here]) : rule.pad) * rule.multipliers[0];
  for (int lookback = 1; lookback < order; ++lookback) {
    reachable = reachable && live[here - lookback] != 0;
    mix ^= (reachable ? static_cast<uint64_t>(ids[here - lookback]) : rule.pad) *
           rule.multipliers[lookback];
  }
  rows[i] = rule.offsets[column] + FloorModulo(mix, rule.primes[column]);
}

__global__ void DecodeBf16Kernel(const uint8_t* rows, int64_t values_count, float* values) {
  // Four values a thread: 8 bytes in, 16 out.
  const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x);
  if (i + 4 <= values_count) {
    const uint2 bits = reinterpret_cast<const uint2*>(rows)[i / 4];
    float4 out;
    out.x = __uint_as_float(bits.x << 16);
    out.y = __uint_as_float(bits.x & 0xffff0000u);
    out.z = __uint_as_float(bits.y << 16);
    out.w = __uint_as_float(bits.y & 0xffff0000u);
    reinterpret_cast<float4*>(values)[i / 4] = out;
    return;
  }
  for (int64_t j = i; j < values_count; ++j) {
    const uint32_t bits = rows[2 * j] | static_cast<uint32_t>(rows[2 * j + 1]) << 8;
    values[j] = __uint_as_float(bits << 16);
  }
}

__device__ float Fp8ToFloat(uint32_t bits) {
  const uint32_t sign = (bits & 0x80u) << 24;
  const uint32_t exponent = (bits >> 3) & 0xfu;
  const uint32_t mantissa = bits & 0x7u;
  if (exponent == 0xfu && mantissa == 0x7u) return __uint_as_float(sign | 0x7fc00000u);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0.001953125f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return __uint_as_float(sign | ((exponent + 120u) << 23) | (mantissa << 20));
}

__device__ float ScaleToFloat(uint32_t bits) {
  if (bits == 0xff) return __uint_as_float(0x7fc00000u);
  if (bits == 0) return __uint_as_float(0x00400000u);
  return __uint_as_float(bits << 23);
}

// A warp a row: lane l takes value l of every block of 32, which share a scale.
__global__ void DecodeFp8Kernel(const uint8_t* rows, int64_t count, int dim, bool scaled,
                                float* values) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kBlock / kWarp) + threadIdx.x / kWarp;
  if (row >= count) return;
  const int lane = threadIdx.x % kWarp;
  const int blocks = dim / kWarp;
  const uint8_t* const from = rows + row * (dim + (scaled ? blocks : 0));
  float* const to = values + row * dim;
  for (int b = 0; b < blocks; ++b) {
    const float value = Fp8ToFloat(from[b * kWarp + lane]);
    to[b * kWarp + lane] = scaled ? value * ScaleToFloat(from[dim + b]) : value;
  }
}

// Sums of kCount values over the block, the same order each time; valid in every thread.
template <int kCount>
__device__ void BlockSum(float (&sums)[kCount]) {
  __shared__ float shared[kCount][kBlock / kWarp];
  for (int i = 0; i < kCount; ++i) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      sums[i] += __shfl_down_sync(0xffffffffu, sums[i], offset);
    }
    if (threadIdx.x % kWarp == 0) shared[i][threadIdx.x / kWarp] = sums[i];
  }
  __syncthreads();
  for (int i = 0; i < kCount; ++i) {
    float sum = 0;
    for (int warp = 0; warp < kBlock / kWarp; ++warp) sum += shared[i][warp];
    sums[i] = sum;
  }
}

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__global__ void PaperGateKernel(PaperShape shape, const float* keys, const float* value,
                                const uint8_t* live, const float* key_norm, const float* query_norm,
                                const float* conv_norm, const float* h, float* u, float* normed) {
  const int64_t t = blockIdx.x;
  const int64_t g = blockIdx.y;
  const int64_t width = shape.width;
  const int64_t at = (t * shape.streams + g) * width;
  float sums[4] = {0, 0, 0, 0};  // |key|^2, |h|^2, weighted dot, |value|^2
  for (int64_t i = threadIdx.x; i < width; i += kBlock) {
    const float key = keys[at + i];
    const float query = h[at + i];
    const float v = value[t * width + i];
    sums[0] += key * key;
    sums[1] += query * query;
    sums[2] += key * key_norm[g * width + i] * (query * query_norm[g * width + i]);
    sums[3] += v * v;
  }
  BlockSum(sums);
  const float d = static_cast<float>(width);
  const float dot =
      sums[2] / sqrtf(sums[0] / d + kPaperNormEps) / sqrtf(sums[1] / d + kPaperNormEps) / sqrtf(d);
  const float root = sqrtf(fmaxf(fabsf(dot), 1e-6f));
  const float gate = live[t] != 0 ? Sigmoid(dot > 0 ? root : dot < 0 ? -root : 0.0f) : 0.0f;
  const float scale = 1.0f / sqrtf(gate * gate * sums[3] / d + kPaperConvNormEps);
  const int64_t to = at + shape.history_rows * shape.streams * width;
  for (int64_t i = threadIdx.x; i < width; i += kBlock) {
    const float gated = gate * value[t * width + i];
    u[at + i] = gated;
    normed[to + i] = gated * scale * conv_norm[g * width + i];
  }
}

__global__ void PaperConvolveKernel(PaperShape shape, const float* conv, const float* u,
                                    const float* normed, float* h) {
  const int64_t channels = shape.streams * shape.width;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= shape.tokens * channels) return;
  const int64_t t = i / channels;
  const int64_t c = i % channels;
  float sum = 0;
  for (int64_t tap = 0; tap < shape.kernel; ++tap) {
    sum =
        fmaf(conv[c * shape.kernel + tap], normed[(t + tap * shape.dilation) * channels + c], sum);
  }
  h[i] += u[i] + sum * Sigmoid(sum);
}

__global__ void FuseV41Kernel(int64_t streams, int64_t width, float norm_eps, const float* kv,
                              const float* qk_weight, const uint8_t* live, float* h) {
  const int64_t t = blockIdx.x;
  const int64_t g = blockIdx.y;
  if (live[t] == 0) return;
  const float* const key = kv + t * (streams + 1) * width + g * width;
  const float* const value = kv + (t * (streams + 1) + streams) * width;
  float* const stream = h + (t * streams + g) * width;
  float sums[3] = {0, 0, 0};  // weighted dot, |h|^2, |key|^2
  for (int64_t i = threadIdx.x; i < width; i += kBlock) {
    sums[0] += stream[i] * qk_weight[g * width + i] * key[i];
    sums[1] += stream[i] * stream[i];
    sums[2] += key[i] * key[i];
  }
  BlockSum(sums);
  const float d = static_cast<float>(width);
  const float dot =
      sums[0] / sqrtf(sums[1] / d + norm_eps) / sqrtf(sums[2] / d + norm_eps) / sqrtf(d);
  const float gate = Sigmoid(copysignf(sqrtf(fmaxf(fabsf(dot), 1e-6f)), dot));
  for (int64_t i = threadIdx.x; i < width; i += kBlock) {
    stream[i] = fmaf(gate, value[i], stream[i]);
  }
}

}  // namespace

void HashRows(const HashRule& rule, const int64_t* ids, const uint8_t* live, int64_t tokens,
              uint64_t* rows, cudaStream_t stream) {
  const int64_t work = tokens * (rule.ngram_size - 1) * rule.heads_per_order;
  HashKernel<<<Blocks(work, kBlock), kBlock, 0, stream>>>(rule, ids, live, tokens, rows);
}

void DecodeBf16(const uint8_t* rows, int64_t count, int dim, float* values, cudaStream_t stream) {
  DecodeBf16Kernel<<<Blocks(count * dim, 4 * kBlock), kBlock, 0, stream>>>(rows, count * dim,
                                                                           values);
}

void DecodeFp8(const uint8_t* rows, int64_t count, int dim, bool scaled, float* values,
               cudaStream_t stream) {
  DecodeFp8Kernel<<<Blocks(count, kBlock / kWarp), kBlock, 0, stream>>>(rows, count, dim, scaled,
                                                                        values);
}

void PaperGate(const PaperShape& shape, const float* keys, const float* value, const uint8_t* live,
               const float* key_norm, const float* query_norm, const float* conv_norm,
               const float* h, float* u, float* normed, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(shape.tokens), static_cast<unsigned>(shape.streams));
  PaperGateKernel<<<grid, kBlock, 0, stream>>>(shape, keys, value, live, key_norm, query_norm,
                                               conv_norm, h, u, normed);
}

void PaperConvolve(const PaperShape& shape, const float* conv, const float* u, const float* normed,
                   float* h, cudaStream_t stream) {
  const int64_t work = shape.tokens * shape.streams * shape.width;
  PaperConvolveKernel<<<Blocks(work, kBlock), kBlock, 0, stream>>>(shape, conv, u, normed, h);
}

void FuseV41(int64_t tokens, int64_t streams, int64_t width, float norm_eps, const float* kv,
             const float* qk_weight, const uint8_t* live, float* h, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(streams));
  FuseV41Kernel<<<grid, kBlock, 0, stream>>>(streams, width, norm_eps, kv, qk_weight, live, h);
}

}  // namespace engram::kernels::cuda
