// The forward pass. Weights bf16 or fp32 as stored; activations, residual streams and caches fp32.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/table/layout.h"
#include "compute/model/engram_layer.h"
#include "compute/model/mla.h"
#include "compute/model/moe.h"
#include "compute/model/residual.h"

namespace engram::compute {

class Transformer {
 public:
  // All references must outlive the transformer. `row_format` is that of the Engram tables. A step
  // has at most `tokens_max` tokens. With several ranks the weights are those of ShardWeights, and
  // every rank makes the same calls with the same arguments; what they return is undefined once
  // ranks.status() is an error.
  Transformer(const ModelConfig& config, const Weights& weights, const table::RowFormat& row_format,
              kernels::Pool& pool, int64_t tokens_max,
              parallel::Collective& ranks = parallel::Solo());
  // Of the pool's workspace, to be reserved before; what more is needed is allocated at first use.
  static int64_t WorkspaceBytes(const ModelConfig& config, int64_t tokens_max, int64_t threads);

  // Computes the segments' tokens (ids already checked), each behind what its sequence has, and
  // returns their final, normed hidden states [T, D] in the same order, until the next call; the
  // states' lengths grow. `rows` holds run i for segment i. Where rows did not come the gate is
  // closed: the caller looks at its rows' status and decides whether that result may be used.
  // `load`, where there is one, counts which experts were given the tokens.
  std::span<const float> Forward(std::span<const Segment> segments, LayerRows& rows,
                                 PagePool& pages, ExpertLoad* load = nullptr) const;

  // hidden [T, D] -> logits [T, V], which may hold NaN when the weights or rows do.
  void Logits(std::span<const float> hidden, std::span<float> logits) const;

 private:
  // Block i; either `dense` or `moe`.
  struct Layer {
    std::optional<EngramLayer> engram;
    HyperConnections attention_residual;
    MlaBlock attention;
    HyperConnections mlp_residual;
    std::optional<DenseBlock> dense;
    std::optional<MoeBlock> moe;
  };
  void Embed(std::span<const Segment> segments, std::span<float> x) const;
  void Rotate(std::span<const Segment> segments, std::span<float> rotations) const;

  const ModelContext context_;
  const Weights& weights_;
  const std::vector<double> frequencies_;  // of rotation
  std::vector<Layer> layers_;
  std::span<float> hidden_;  // [tokens_max, D]
};

}  // namespace engram::compute
