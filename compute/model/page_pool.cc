#include "compute/model/page_pool.h"

namespace engram::compute {

PageShape PageShapeOf(const ModelConfig& config, int64_t positions) {
  const table::EngramConfig& engram = config.engram;
  const bool convolved = engram.variant == table::Variant::kPaper && !engram.layer_ids.empty();
  return {positions, config.layer_count, config.attention.latent + config.attention.rope,
          static_cast<int64_t>(engram.layer_ids.size()),
          convolved ? (engram.conv_kernel - 1) * static_cast<int64_t>(engram.max_ngram_size) *
                          config.streams * config.hidden_size
                    : 0};
}

Result<PagePool> PagePool::Make(const PageShape& shape, int64_t pages) {
  CHECK(shape.positions > 0 && pages > 0);
  const auto bytes = static_cast<size_t>(shape.page_floats() * pages) * sizeof(float);
  ASSIGN_OR_RETURN(AlignedBuffer memory, AlignedBuffer::Allocate(bytes, PageBacking::kTransparent));
  return PagePool(shape, pages, std::move(memory));
}

}  // namespace engram::compute
