// engram-compute score: log-probabilities of given token lists, one JSON object a line in and out.
#pragma once

#include <string>

#include "common/base/status.h"
#include "compute/parallel/collective.h"
#include "compute/session/config.h"

namespace engram::compute {

// Each line {"tokens":[...]} of `input` becomes {"logprobs":[null,...]} in `output`, which appears
// only when every line was scored. Errors name the line.
Status RunScore(const ComputeConfig& config, const std::string& input, const std::string& output,
                parallel::Collective& ranks = parallel::Solo());

}  // namespace engram::compute
