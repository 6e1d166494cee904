// The Engram sublayer: rows as bytes -> embeddings -> projections -> gate -> residual streams.
#pragma once

#include <cstdint>
#include <span>

#include "common/table/layout.h"
#include "compute/model/context.h"

namespace engram::compute {

class EngramLayer {
 public:
  // Every rank fuses what all of them projected.
  EngramLayer(const ModelContext& context, const EngramWeights& weights,
              const table::RowFormat& format, uint32_t layer_index)
      : context_(context), weights_(weights), format_(format), layer_index_(layer_index) {}

  // Waits for the layer's rows, and adds to streams [T, G, D]. A segment without rows has its gate
  // closed. The convolution's history (paper variant) is carried in the segments' states and copied
  // to the cache wherever a page ends.
  void Forward(std::span<float> streams, const StepContext& step) const;
  // Of the workspace, for a step of so many tokens.
  static int64_t FloatsOf(const ModelConfig& config, int64_t tokens);

 private:
  kernels::Activations Embeddings(const StepContext& step) const;
  void KeysAndValues(const kernels::Activations& embeddings, std::span<float> out) const;
  void FusePaper(const StepContext& step, std::span<const float> keys_and_values,
                 std::span<const uint8_t> live, std::span<float> streams) const;

  const ModelContext context_;
  const EngramWeights& weights_;
  const table::RowFormat format_;
  const uint32_t layer_index_;
};

}  // namespace engram::compute
