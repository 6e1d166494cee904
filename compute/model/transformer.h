// The forward pass. Weights bf16 or fp32 as stored; activations, residual streams and caches fp32.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/table/layout.h"
#include "compute/memory/layer_rows.h"
#include "compute/model/expert_load.h"
#include "compute/model/mla.h"
#include "compute/model/residual.h"
#include "compute/model/sequence_state.h"
#include "compute/model/weights.h"
#include "compute/parallel/collective.h"
#include "kernels/pool.h"

namespace engram::compute {

class Transformer {
 public:
  // All references must outlive the transformer. `row_format` is that of the Engram tables. With
  // several ranks the weights are those of ShardWeights, and every rank makes the same calls with
  // the same arguments; what they return is undefined once ranks.status() is an error.
  Transformer(const ModelConfig& config, const Weights& weights, const table::RowFormat& row_format,
              kernels::Pool& pool, parallel::Collective& ranks = parallel::Solo());

  // Computes the segments' tokens (ids already checked), each behind what its sequence has, and
  // returns their final, normed hidden states [T, D] in the same order; the states' lengths grow.
  // `rows` holds run i for segment i. Where rows did not come the gate is closed: the caller looks
  // at its rows' status and decides whether that result may be used. `load`, where there is one,
  // counts who was given the tokens.
  std::vector<float> Forward(std::span<const Segment> segments, LayerRows& rows, PagePool& pages,
                             ExpertLoad* load = nullptr) const;

  // hidden [T, D] -> logits [T, V], which may hold NaN when the weights or rows do.
  void Logits(std::span<const float> hidden, std::span<float> logits) const;

 private:
  std::vector<float> Embed(std::span<const Segment> segments) const;

  const ModelConfig& config_;
  const Weights& weights_;
  table::RowFormat row_format_;
  kernels::Pool& pool_;
  parallel::Collective& ranks_;
  MlaBlock attention_;
  Residual residual_;
};

}  // namespace engram::compute
