// bf16 weights packed once, at load, into the order the matrix products read them, and the products
// over them: activations rounded to bf16, fp32 accumulation. An output's bits depend on its own
// activations and weights alone: not on how many tokens there are, the partition or the threads.
// They do differ between instruction sets (isa.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/base/types.h"
#include "kernels/cpu/packed_product.h"
#include "kernels/pool.h"

namespace engram::kernels {

struct Matrix;
class WeightMemory;

class PackedMatrix {
 public:
  // `w` is bf16. In `memory`, which must outlive it. RESOURCE_EXHAUSTED when there is none.
  static Result<PackedMatrix> Pack(Pool& pool, WeightMemory& memory, const Matrix& w);
  // Two matrices of one shape, a tile of the one beside a tile of the other, for GatedExperts.
  static Result<PackedMatrix> PackPair(Pool& pool, WeightMemory& memory, const Matrix& gate,
                                       const Matrix& up);

  int64_t rows() const { return rows_; }  // of one of a pair
  int64_t columns() const { return columns_; }
  size_t bytes() const { return packed_.size(); }
  int64_t tiles() const { return (rows_ + cpu::kTileRows - 1) / cpu::kTileRows; }  // of one
  bool is_pair() const { return pair_; }
  cpu::PackedView view() const;

 private:
  static Result<PackedMatrix> Make(Pool& pool, WeightMemory& memory,
                                   std::span<const Matrix* const> sources);
  std::span<const std::byte> packed_;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  bool pair_ = false;
};

// Activations rounded to bf16, as the active instruction set reads them: rows of `columns`, each
// filled up to whole pairs with zeros. A view of a workspace's memory.
class RoundedActivations {
 public:
  RoundedActivations() = default;
  // Room for `count` rows, to be filled by RoundPart or Round.
  RoundedActivations(Workspace& memory, int64_t count, int64_t columns);
  void RoundPart(int64_t row, int64_t first_column, std::span<const float> values) {
    version_.round(values.data(), std::ssize(values), at(row, first_column));
  }
  // All of x [count, columns].
  void Round(Pool& pool, std::span<const float> x);
  // Row i <- row rows[i] of `from`.
  void Gather(const RoundedActivations& from, std::span<const int32_t> rows);

  const void* row(int64_t i) const { return values_ + i * stride_ * version_.value_bytes; }
  int64_t stride() const { return stride_; }  // values
  int64_t count() const { return count_; }
  int64_t columns() const { return columns_; }

 private:
  void* at(int64_t row, int64_t column) {
    return values_ + (row * stride_ + column) * version_.value_bytes;
  }
  cpu::PackedVersion version_;
  std::byte* values_ = nullptr;
  int64_t stride_ = 0;
  int64_t count_ = 0;
  int64_t columns_ = 0;
};

// Tells the threads that `w` is read by the loop after the next one (Pool::Expect).
void Expect(Pool& pool, const Matrix& w);
void Expect(Pool& pool, const PackedMatrix& w);

// One of several products of the same activations: y[t * y_stride + o].
struct Product {
  const Matrix* w = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;
};
// All in one loop; of matrices that are packed.
void LinearPacked(Pool& pool, const RoundedActivations& x, std::span<const Product> products);

// y [tokens, w.rows] = x [tokens, w.columns] w^T. |error| <= (columns + 1) eps * sum |x w| for x
// rounded to bf16, which itself moves each x by at most 2^-9 of it.
void LinearPacked(Pool& pool, const RoundedActivations& x, const PackedMatrix& w,
                  std::span<float> y);
// The same of x that is rounded first.
void LinearPacked(Pool& pool, std::span<const float> x, const PackedMatrix& w, std::span<float> y);

// The rows of activations that go through one expert (or a dense layer).
struct ExpertGroup {
  const PackedMatrix* gate_up = nullptr;  // a pair [I, D]
  const PackedMatrix* down = nullptr;     // [D, I]
  int64_t count = 0;
};
// out [sum of counts, D] = down(silu(gate x) * up x) of each group, one behind the other; the
// middle is rounded to bf16 once. x is row rows[i] of the activations for the i-th entry of all
// groups; once `rows` is used up, a group begins with row 0. Parallel over (expert, tile); which
// thread takes what changes nothing. `next`, which may be null, is what the loop after it reads.
void GatedExperts(Pool& pool, std::span<const ExpertGroup> groups, const RoundedActivations& x,
                  std::span<const int32_t> rows, std::span<float> out,
                  const Matrix* next = nullptr);

}  // namespace engram::kernels
