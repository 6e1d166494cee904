// Logits to a token, and what is reported of it. Pure functions of one sequence's own row: which
// other sequences share the step, or whether it was preempted, changes nothing.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

#include "compute/engine/completion.h"

namespace engram::compute {

// How often each token was generated before, for the penalties.
using TokenCounts = std::unordered_map<int32_t, int64_t>;

// The n-th token of a completion (n from 0). Ties go to the lower id; the draw is an inverse
// transform in float64 over a random number that depends on (seed, n) alone.
int32_t ChooseToken(std::span<const float> logits, const SamplingOptions& options,
                    const TokenCounts& generated, int64_t n);

// Log-probabilities of the model's own distribution, summed in float64: the chosen token's, and the
// `top` likeliest ones.
SampledToken ReportToken(std::span<const float> logits, int32_t token, int top);

}  // namespace engram::compute
