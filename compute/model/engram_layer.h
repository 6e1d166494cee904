// The Engram sublayer: rows as bytes -> embeddings -> projections -> gate -> residual streams.
#pragma once

#include <cstddef>
#include <span>

#include "common/table/layout.h"
#include "compute/model/model_config.h"
#include "compute/model/weights.h"
#include "kernels/pool.h"

namespace engram::compute {

// rows [T, rows_per_position, row_bytes]; streams [T, G, D] are added to; `conv_history` is the
// layer's (paper variant), carried from step to step.
void EngramForward(kernels::Pool& pool, const ModelConfig& config, const EngramWeights& weights,
                   const table::RowFormat& format, std::span<const std::byte> rows,
                   std::span<float> conv_history, std::span<float> streams);

}  // namespace engram::compute
