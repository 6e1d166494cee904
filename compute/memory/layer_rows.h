// The Engram rows of one step, layer by layer, as the forward pass takes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace engram::compute {

class LayerRows {
 public:
  virtual ~LayerRows() = default;
  // Blocks until the layer's rows of every run are there, or known not to come.
  virtual void Wait(uint32_t layer_index) = 0;
  // [tokens, rows_per_position, row_bytes] of run i; empty when they did not come. After Wait for
  // the layer.
  virtual std::span<const std::byte> Rows(size_t run, uint32_t layer_index) const = 0;
};

}  // namespace engram::compute
