// What the blocks of a model work with, and what they need of the step at hand.
#pragma once

#include <cstdint>
#include <span>

#include "compute/memory/layer_rows.h"
#include "compute/model/expert_load.h"
#include "compute/model/model_config.h"
#include "compute/model/sequence_state.h"
#include "compute/model/weights.h"
#include "compute/parallel/collective.h"
#include "kernels/activations.h"
#include "kernels/pool.h"

namespace engram::compute {

// Rows of logits computed at once, at most.
inline constexpr int64_t kLogitRows = 64;

struct ModelContext {
  const ModelConfig& config;
  kernels::Pool& pool;
  parallel::Collective& ranks;

  kernels::Workspace& memory() const { return pool.memory(); }
};

// T tokens, those of all segments one after the other.
struct StepContext {
  std::span<const Segment> segments;
  int64_t tokens = 0;
  std::span<const float> rotations;  // [T, rope] of queries and keys, alike in every layer
  PagePool& pages;
  LayerRows& rows;             // run i is segment i's
  ExpertLoad* load = nullptr;  // may be null
};

// y [T, columns] <- x w^T, where `w` has this rank's rows: the ranks gather what they computed.
template <typename X>  // kernels::Activations, or a span of floats
void GatheredLinear(const ModelContext& context, const X& x, const Matrix& w, int64_t columns,
                    std::span<float> y) {
  if (w.rows == columns) return kernels::Linear(context.pool, x, w, y);
  const kernels::Workspace::Scope scope(context.memory());
  const int64_t tokens = std::ssize(y) / columns;
  const std::span<float> mine = context.memory().Take<float>(tokens * w.rows);
  kernels::Linear(context.pool, x, w, mine);
  parallel::GatherColumns(context.ranks, context.memory(), mine, tokens, kShardRows, y);
}

}  // namespace engram::compute
