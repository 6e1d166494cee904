// Every operation of the model, one declaration each: shapes, order of summation, tolerance. All
// fp32 in and out; weights as stored. No result depends on batch, chunk or thread count: each
// output element is computed by one thread in an order fixed by its own row alone. `eps` in
// tolerances is 2^-24; sums of magnitudes are over the products summed. README.md has the table;
// kernels/plain holds the plain versions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/types.h"
#include "kernels/pool.h"

namespace engram::kernels {

class PackedMatrix;  // packed.h

// A weight as stored: row-major [rows, columns], bf16 or fp32, any alignment. Rows are `stride`
// elements apart.
struct Matrix {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;
  // The same weights packed, if they were: Linear then rounds activations to bf16.
  const PackedMatrix* packed = nullptr;

  const std::byte* row(int64_t r) const { return data + r * stride * int64_t(SizeOf(dtype)); }
  Matrix Rows(int64_t first, int64_t count) const {
    return {row(first), dtype, count, columns, stride, nullptr};
  }
};
Matrix MatrixOf(std::span<const float> values, int64_t rows, int64_t columns);
Matrix MatrixOf(std::span<const Bf16> values, int64_t rows, int64_t columns);

// A stack of vectors, `stride` floats apart.
struct Rows {
  const float* data = nullptr;
  int64_t count = 0;
  int64_t stride = 0;
};

// --- linear.cc: the two matrix products. ref:: and the plain names are bit-identical.
// y[t * y_stride + o] = sum_c x[t, c] w[o, c]. Sixteen lanes, lane l summing columns l, l+16, .. by
// fused multiply-add from 0, folded 8, 4, 2, 1. |error| <= (columns/16 + 5) eps * sum |x w|.
void LinearRows(Rows x, const Matrix& w, float* y, int64_t y_stride);
// y[t * y_stride + c] = sum_r x[t, r] w[r, c], r ascending, fused multiply-add. |error| <= rows *
// eps * sum |x w|.
void TransposedRows(Rows x, const Matrix& w, float* y, int64_t y_stride);
namespace ref {
void LinearRows(Rows x, const Matrix& w, float* y, int64_t y_stride);
void TransposedRows(Rows x, const Matrix& w, float* y, int64_t y_stride);
}  // namespace ref
// x [tokens, columns] -> y [tokens, rows] over the pool, split by output column: LinearRows, or
// LinearPacked when `w` is packed.
void Linear(Pool& pool, std::span<const float> x, const Matrix& w, std::span<float> y);
// The same into rows that are `y_stride` apart, by LinearRows.
void Linear(Pool& pool, std::span<const float> x, const Matrix& w, float* y, int64_t y_stride);
// Begins to read rows that lie close together into the second-level cache. For a few hundred KiB
// that are used soon: short rows of a small matrix come too late otherwise.
void Prefetch(const Matrix& w);
// values[o] = w[row, o], exact.
void DecodeWeights(const Matrix& w, int64_t row, std::span<float> values);

// --- elementwise.cc
// y = x / sqrt(mean(x^2) + eps) * weight, per row of weight.size(); x may be y. Relative error 8
// eps + |x|^2's.
void RmsNorm(std::span<const float> x, std::span<const float> weight, float norm_eps,
             std::span<float> y);
// gate <- silu(gate) * up. Relative error 8 eps.
void SwiGlu(std::span<float> gate, std::span<const float> up);
void Add(std::span<float> x, std::span<const float> y);                     // x += y
void AddScaled(std::span<float> x, float scale, std::span<const float> y);  // x += scale * y
void AddBias(std::span<float> x, std::span<const float> bias);  // each row of bias.size()
// scores <- softmax(scale * scores): maximum, then ExpScaled.
void Softmax(std::span<float> scores, float scale);
// values <- exp((values - largest) * scale), at most 0 in the exponent; returns their sum, taken in
// sixteen lanes like a dot product. Relative error of each 4 eps (+ 3 eps of |exponent|).
float ExpScaled(std::span<float> values, float largest, float scale);

// --- rope.cc
struct YarnScaling {  // DeepSeek-V3's rope_scaling
  double factor = 1;
  double original_positions = 4096;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;
  double mscale_all_dim = 0;
};
// Radians per position of each pair [dim / 2]; `yarn` may be null.
std::vector<double> RopeFrequencies(int dim, double theta, const YarnScaling* yarn);
double YarnMscale(double factor,
                  double mscale);  // 1 when factor <= 1, else 0.1 mscale ln(factor) + 1
// What rotates pair i at a position, times `magnitude`: [2 i] its cosine, [2 i + 1] its sine, of
// position * frequencies[i] in float64. One row serves all heads and layers.
void RopeRotation(int64_t position, std::span<const double> frequencies, float magnitude,
                  std::span<float> rotation);
// Pairs (2i, 2i+1) of x rotated; x.size() == rotation.size(). |error| <= 4 eps (|a| + |b|).
void Rope(std::span<float> x, std::span<const float> rotation);

// --- attention.cc: multi-head latent attention over the cache of latents.
struct MlaShape {
  int64_t heads = 0;
  int64_t nope = 0;
  int64_t rope = 0;
  int64_t value = 0;
  int64_t latent = 0;
  float scale = 0;
};
// One layer of a cache: page p begins `page_bytes` * p behind `pages` with the entries of
// `page_positions` positions, each [latent + rope] (normed latent, rotated key), in fp32 or bf16.
// Of bf16 entries the result is bit for bit that of fp32 ones with the same values: a cache in bf16
// costs the rounding of each entry, 2^-9 of it, and no more.
struct MlaCache {
  const std::byte* pages = nullptr;
  int64_t page_bytes = 0;
  int64_t page_positions = 0;
  DType dtype = DType::kF32;
};
// The tokens of one sequence in a step: pages[i] holds its positions from i * page_positions on.
struct MlaSegment {
  int64_t tokens = 0;
  int64_t first_position = 0;
  std::span<const int32_t> pages;
};
// q [tokens, heads, nope + rope], rope part rotated, of all segments one after the other; kv_b
// [heads * (nope + value), latent]; out [tokens, heads, value]. Absorbed: scores and sums are taken
// in latent space. Softmax by blocks of 32 positions, whose sums are combined in ascending order,
// whatever pages and threads there are. |error| grows with sqrt(positions) eps; see the test.
void MlaAttention(Pool& pool, const MlaShape& shape, const MlaCache& cache,
                  std::span<const MlaSegment> segments, std::span<const float> q,
                  const Matrix& kv_b, std::span<float> out);
// Of the workspace, at most, for so many tokens.
int64_t MlaFloatsOf(const MlaShape& shape, int64_t tokens, int64_t threads);
namespace ref {
// The same of one sequence whose cache [first_position + tokens, latent + rope] lies in one piece,
// from per-head keys and values, unabsorbed.
void MlaAttention(const MlaShape& shape, std::span<const float> q, const Matrix& kv_b,
                  std::span<const float> cache, int64_t first_position, std::span<float> out);
}  // namespace ref

// --- route.cc
struct RouteRule {
  int experts = 0;
  int experts_per_token = 0;
  int groups = 1;
  int groups_kept = 1;
  bool normalize = true;
  float scaling = 1;
};
// One token: logits [experts], bias [experts] -> chosen [experts_per_token] by score + bias
// descending, ties to the lower index, and their weights. `scratch`: 2 * experts.
void RouteToken(const RouteRule& rule, std::span<const float> logits, std::span<const float> bias,
                std::span<int32_t> chosen, std::span<float> weights, std::span<float> scratch);

// --- residual.cc: hyper-connections of G streams, one token.
inline constexpr int64_t kHyperStreamsMax = 16;
struct HyperMix {             // values of one token, views of the caller's memory
  std::span<float> pre;       // [G]
  std::span<float> post;      // [G]
  std::span<float> residual;  // [G, G]
};
// m [G, G] <- exp(m), then `rounds` of rows to sum 1, columns to sum 1.
void SinkhornExp(std::span<float> m, int64_t streams, int rounds);
// u = sum_g pre_g x_g; streams [G, D].
void HyperCollapse(const HyperMix& mix, std::span<const float> streams, std::span<float> u);
// x_g <- sum_j residual[g, j] x_j + post_g y.
void HyperExpand(const HyperMix& mix, std::span<const float> y, std::span<float> streams);

// --- engram.cc: fusion of the projected rows; T positions, G streams, D hidden. `live` is empty
// (all live) or a flag a position; a dead position's gate is 0.
inline constexpr float kPaperNormEps = 1.1920929e-07f;
inline constexpr float kPaperConvNormEps = 1e-5f;
struct PaperFusion {
  std::span<const float> key_norm;    // [G, D]
  std::span<const float> query_norm;  // [G, D]
  std::span<const float> conv_norm;   // [G, D]
  std::span<const float> conv;        // [G * D, kernel]; the last tap is the current position
  int64_t streams = 0;
  int64_t kernel = 0;
  int64_t dilation = 0;
  // Floats of history one sequence keeps: the normed u of the last (kernel - 1) * dilation
  // positions, oldest first.
  int64_t history_size() const { return (kernel - 1) * dilation * std::ssize(conv_norm); }
};
// h [T, G, D] += u + SiLU(conv(norm(u))), u_g = gate_g * value; keys [T, G, D], value [T, D].
// `history` starts as zeros and is carried from chunk to chunk.
void FusePaper(Workspace& memory, const PaperFusion& fusion, std::span<const float> keys,
               std::span<const float> value, std::span<const uint8_t> live,
               std::span<float> history, std::span<float> h);
// h [T, G, D] += gate * value; kv [T, G * D + D], keys then value; qk_weight [G, D] = q_weight *
// k_weight.
void FuseV41(std::span<const float> kv, std::span<const float> qk_weight, int64_t streams,
             float norm_eps, std::span<const uint8_t> live, std::span<float> h);
// Each 32 values rounded to fp8 e4m3 under the smallest power-of-two scale with amax / scale <=
// 448, and back.
void QuantizeActivations(std::span<float> x);
// fp8 e4m3 [rows, columns] with one ue8m0 scale a 32x32 block -> bf16. False when a value does not
// fit bf16 exactly.
bool DequantizeBlocks(std::span<const std::byte> fp8, std::span<const std::byte> scales,
                      int64_t rows, int64_t columns, std::span<Bf16> out);

// --- logits.cc
bool AllFinite(std::span<const float> values);
int64_t ArgMax(std::span<const float> values);  // ties to the lower index; NaN is never largest
// sum of exp(logit - largest), none of which is above it, in float64: eight lanes, then ascending.
double SumOfExp(std::span<const float> logits, float largest);
// log softmax(logits)[index] by SumOfExp. Absolute error 1e-12.
double LogProbability(std::span<const float> logits, int64_t index);

}  // namespace engram::kernels
