// The Engram sublayer: rows as bytes -> embeddings -> projections -> gate -> residual streams.
#pragma once

#include <cstddef>
#include <span>

#include "common/table/layout.h"
#include "compute/memory/layer_rows.h"
#include "compute/model/model_config.h"
#include "compute/model/sequence_state.h"
#include "compute/model/weights.h"
#include "kernels/pool.h"

namespace engram::compute {

// streams [T, G, D] of all segments' tokens are added to; `rows`, waited for, hold run i for
// segment i. A segment without rows has its gate closed. The convolution's history (paper variant)
// is carried in the segments' states and copied to `pages` wherever a page ends.
// Every rank fuses what all of them projected.
void EngramForward(kernels::Pool& pool, parallel::Collective& ranks, const ModelConfig& config,
                   const EngramWeights& weights, const table::RowFormat& format,
                   uint32_t layer_index, std::span<const Segment> segments, const LayerRows& rows,
                   PagePool& pages, std::span<float> streams);

}  // namespace engram::compute
