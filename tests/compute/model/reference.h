// The whole model once more, in float64, straight from the formulas: per-head attention, whole
// prompt at once, no code shared with the engine. Slow; for tests.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/io/json.h"
#include "tests/compute/tiny_model.h"

namespace engram::compute {

// The Engram embedding of a position, [rows_per_position * head_dim].
using EmbeddingOf = std::function<std::vector<double>(uint32_t layer_index, size_t position)>;

// log P(tokens[i] | before), i = 1...
std::vector<double> ReferenceScore(const json::object& config,
                                   const std::vector<NamedTensor>& tensors,
                                   std::span<const int32_t> tokens, const EmbeddingOf& embedding);

}  // namespace engram::compute
