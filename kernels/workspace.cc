#include "kernels/workspace.h"

#include <algorithm>

#include "common/base/check.h"

namespace engram::kernels {
namespace {

constexpr int64_t kAlign = 64;
constexpr int64_t kGrowthMin = 1 << 20;

}  // namespace

Status Workspace::Reserve(int64_t bytes) {
  ASSIGN_OR_RETURN(AlignedBuffer piece, AlignedBuffer::Allocate(bytes, PageBacking::kTransparent));
  pieces_.push_back(std::move(piece));
  return OkStatus();
}

std::byte* Workspace::TakeBytes(int64_t bytes) {
  bytes = (bytes + kAlign - 1) / kAlign * kAlign;
  for (; piece_ < std::ssize(pieces_); ++piece_, used_ = 0) {
    AlignedBuffer& piece = pieces_[piece_];
    if (used_ + bytes > static_cast<int64_t>(piece.size_bytes())) continue;
    used_ += bytes;
    return piece.data() + used_ - bytes;
  }
  ++growths_;
  const Status grown = Reserve(std::max(bytes, kGrowthMin));
  CHECK(grown.ok()) << grown.message();
  used_ = bytes;
  return pieces_[piece_].data();
}

}  // namespace engram::kernels
