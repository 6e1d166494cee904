// The forward pass. Weights bf16 or fp32 as stored; activations, residual streams and caches fp32.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/table/layout.h"
#include "compute/memory/prefetcher.h"
#include "compute/model/mla.h"
#include "compute/model/residual.h"
#include "compute/model/sequence_state.h"
#include "compute/model/weights.h"
#include "kernels/pool.h"

namespace engram::compute {

class Transformer {
 public:
  // All references must outlive the transformer. `row_format` is that of the Engram tables.
  Transformer(const ModelConfig& config, const Weights& weights, const table::RowFormat& row_format,
              kernels::Pool& pool);

  // Computes `tokens` (ids already checked) at positions sequence.length.. and returns their final,
  // normed hidden states [T, D]. The only error is that of a row that did not come.
  Result<std::vector<float>> Forward(std::span<const int32_t> tokens, SequenceState& sequence,
                                     Fetch& fetch) const;

  // hidden [T, D] -> logits [T, V]. INTERNAL when one is not finite.
  Status Logits(std::span<const float> hidden, std::span<float> logits) const;

 private:
  std::vector<float> Embed(std::span<const int32_t> tokens) const;

  const ModelConfig& config_;
  const Weights& weights_;
  table::RowFormat row_format_;
  kernels::Pool& pool_;
  MlaBlock attention_;
  Residual residual_;
};

}  // namespace engram::compute
