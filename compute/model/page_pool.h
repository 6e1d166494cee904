// The memory of the latent cache: a fixed number of pages, each with the entries of a few positions
// in every layer (normed latent and rotated key, fp32, nothing per head) and the Engram
// convolutions' history as it is after the page's last position, so that a sequence can start
// behind any full page. Memory is taken when a page is first written. Who holds which page is the
// engine's business (engine/block_manager.h).
#pragma once

#include <cstdint>
#include <span>

#include "common/base/buffer.h"
#include "common/base/check.h"
#include "compute/model/model_config.h"

namespace engram::compute {

struct PageShape {
  int64_t positions = 0;  // of one page
  int64_t layers = 0;
  int64_t entry_floats = 0;  // latent + rope
  int64_t engram_layers = 0;
  int64_t history_floats = 0;  // of one Engram layer; 0 when the variant has no convolution

  int64_t page_floats() const {
    return layers * positions * entry_floats + engram_layers * history_floats;
  }
  int64_t page_bytes() const { return page_floats() * static_cast<int64_t>(sizeof(float)); }
};
PageShape PageShapeOf(const ModelConfig& config, int64_t positions);

class PagePool {
 public:
  // RESOURCE_EXHAUSTED when the machine does not give the address space.
  static Result<PagePool> Make(const PageShape& shape, int64_t pages);

  const PageShape& shape() const { return shape_; }
  int64_t pages() const { return pages_; }
  // [positions, entry_floats]
  std::span<float> Entries(int32_t page, int64_t layer) {
    const int64_t floats = shape_.positions * shape_.entry_floats;
    return {PageAt(page) + layer * floats, static_cast<size_t>(floats)};
  }
  std::span<float> History(int32_t page, int64_t engram_index) {
    return {PageAt(page) + shape_.layers * shape_.positions * shape_.entry_floats +
                engram_index * shape_.history_floats,
            static_cast<size_t>(shape_.history_floats)};
  }

 private:
  PagePool(const PageShape& shape, int64_t pages, AlignedBuffer memory)
      : shape_(shape), pages_(pages), memory_(std::move(memory)) {}
  float* PageAt(int32_t page) {
    CHECK(page >= 0 && page < pages_) << page;
    return reinterpret_cast<float*>(memory_.data()) + page * shape_.page_floats();
  }

  PageShape shape_;
  int64_t pages_;
  AlignedBuffer memory_;
};

}  // namespace engram::compute
