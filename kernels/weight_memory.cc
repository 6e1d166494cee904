#include "kernels/weight_memory.h"

#include <algorithm>
#include <cstring>

namespace engram::kernels {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kChunkBytes = size_t{256} << 20;  // of address space; memory is taken when written

}  // namespace

Result<std::span<std::byte>> WeightMemory::Take(size_t bytes) {
  const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (whole > left_.size()) {
    ASSIGN_OR_RETURN(AlignedBuffer chunk, AlignedBuffer::Allocate(std::max(whole, kChunkBytes),
                                                                  PageBacking::kTransparent));
    chunks_.push_back(std::move(chunk));
    left_ = chunks_.back().bytes();
  }
  const std::span<std::byte> taken = left_.first(bytes);
  left_ = left_.subspan(whole);
  bytes_ += bytes;
  return taken;
}

Result<Matrix> WeightMemory::Copy(const Matrix& w) {
  const size_t row_bytes = static_cast<size_t>(w.columns) * SizeOf(w.dtype);
  ASSIGN_OR_RETURN(const std::span<std::byte> to, Take(static_cast<size_t>(w.rows) * row_bytes));
  Matrix copy = w;
  copy.data = to.data();
  copy.stride = w.columns;
  for (int64_t r = 0; r < w.rows; ++r) {
    std::memcpy(to.data() + static_cast<size_t>(r) * row_bytes, w.row(r), row_bytes);
  }
  return copy;
}

}  // namespace engram::kernels
