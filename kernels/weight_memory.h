// Memory of weights: taken once, at load, in the order in which they are multiplied with. They lie
// one behind the other in huge pages, so that reading on from one to the next needs no new pages
// (matrices of less than 2 MiB each in pages of its own: 13 instead of 16 GB/s).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/base/buffer.h"
#include "kernels/ops.h"

namespace engram::kernels {

class WeightMemory {
 public:
  // Zeros, aligned to 64 bytes, for as long as this lives. RESOURCE_EXHAUSTED when there is no
  // memory.
  Result<std::span<std::byte>> Take(size_t bytes);
  // A copy of `w` as it is stored, its rows one behind the other.
  Result<Matrix> Copy(const Matrix& w);

  size_t bytes() const { return bytes_; }  // taken

 private:
  std::vector<AlignedBuffer> chunks_;
  std::span<std::byte> left_;  // of the last one
  size_t bytes_ = 0;
};

}  // namespace engram::kernels
