// The memory of the latent cache: a fixed number of pages, each with the entries of a few positions
// in every layer (normed latent and rotated key, fp32 or bf16, nothing per head) and the Engram
// convolutions' history as it is after the page's last position, so that a sequence can start
// behind any full page. Memory is taken when a page is first written. The engine knows the holders
// of each page (engine/page_allocator.h).
#pragma once

#include <cstdint>
#include <span>

#include "common/base/buffer.h"
#include "common/base/check.h"
#include "common/base/types.h"
#include "compute/model/model_config.h"

namespace engram::compute {

struct PageShape {
  int64_t positions = 0;  // of one page
  int64_t layers = 0;
  int64_t entry_floats = 0;  // latent + rope
  int64_t engram_layers = 0;
  int64_t history_floats = 0;  // of one Engram layer; 0 when the variant has no convolution
  DType dtype = DType::kF32;   // of the entries, or kBf16: each rounded to nearest once

  int64_t entry_bytes() const { return entry_floats * int64_t(SizeOf(dtype)); }
  // In whole lines of the processor's cache, behind which the history begins.
  int64_t entries_bytes() const { return (layers * positions * entry_bytes() + 63) / 64 * 64; }
  int64_t page_bytes() const {
    return entries_bytes() + engram_layers * history_floats * int64_t{sizeof(float)};
  }
};
PageShape PageShapeOf(const ModelConfig& config, int64_t positions, DType dtype = DType::kF32);

class PagePool {
 public:
  // RESOURCE_EXHAUSTED when the machine does not give the address space.
  static Result<PagePool> Make(const PageShape& shape, int64_t pages);

  const PageShape& shape() const { return shape_; }
  int64_t pages() const { return pages_; }
  // The entries of one layer in every page: [positions, entry_floats] of shape().dtype.
  kernels::MlaCache Layer(int64_t layer) {
    return {EntryAt(0, layer, 0), shape_.page_bytes(), shape_.positions, shape_.dtype};
  }
  void Write(int32_t page, int64_t layer, int64_t position, std::span<const float> entry);
  std::span<float> History(int32_t page, int64_t engram_index) {
    auto* const first = reinterpret_cast<float*>(PageAt(page) + shape_.entries_bytes());
    return std::span(first + engram_index * shape_.history_floats, shape_.history_floats);
  }

 private:
  PagePool(const PageShape& shape, int64_t pages, AlignedBuffer memory)
      : shape_(shape), pages_(pages), memory_(std::move(memory)) {}
  std::byte* PageAt(int32_t page) {
    CHECK(page >= 0 && page < pages_) << page;
    return memory_.data() + page * shape_.page_bytes();
  }
  std::byte* EntryAt(int32_t page, int64_t layer, int64_t position) {
    return PageAt(page) + (layer * shape_.positions + position) * shape_.entry_bytes();
  }

  PageShape shape_;
  int64_t pages_;
  AlignedBuffer memory_;
};

}  // namespace engram::compute
