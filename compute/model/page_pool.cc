#include "compute/model/page_pool.h"

#include <algorithm>

namespace engram::compute {

PageShape PageShapeOf(const ModelConfig& config, int64_t positions, DType dtype) {
  const table::EngramConfig& engram = config.engram;
  const bool convolved = engram.variant == table::Variant::kPaper && !engram.layer_ids.empty();
  return {positions,
          config.layer_count,
          config.attention.latent + config.attention.rope,
          std::ssize(engram.layer_ids),
          convolved ? (engram.conv_kernel - 1) * int64_t{engram.max_ngram_size} * config.streams *
                          config.hidden_size
                    : 0,
          dtype};
}

Result<PagePool> PagePool::Make(const PageShape& shape, int64_t pages) {
  CHECK(shape.positions > 0 && pages > 0);
  CHECK(shape.dtype == DType::kF32 || shape.dtype == DType::kBf16) << DTypeName(shape.dtype);
  ASSIGN_OR_RETURN(AlignedBuffer memory,
                   AlignedBuffer::Allocate(shape.page_bytes() * pages, PageBacking::kTransparent));
  return PagePool(shape, pages, std::move(memory));
}

void PagePool::Write(int32_t page, int64_t layer, int64_t position, std::span<const float> entry) {
  CHECK(position >= 0 && position < shape_.positions) << position;
  CHECK_EQ(std::ssize(entry), shape_.entry_floats);
  std::byte* const to = EntryAt(page, layer, position);
  if (shape_.dtype == DType::kF32) {
    std::copy(entry.begin(), entry.end(), reinterpret_cast<float*>(to));
  } else {
    std::transform(entry.begin(), entry.end(), reinterpret_cast<Bf16*>(to), ToBf16);
  }
}

}  // namespace engram::compute
