// `engram-compute batch`: a file of completion requests answered together, without a server.
#pragma once

#include <string>

#include "common/base/status.h"
#include "compute/parallel/collective.h"
#include "compute/session/config.h"

namespace engram::compute {

// Each line of `input` is a body of /v1/completions with one prompt (compute/api/README.md); each
// line of `output` the answer to it, in the same order. Nothing is written unless all are answered;
// an error names file and line.
Status RunBatch(const ComputeConfig& config, const std::string& input, const std::string& output,
                parallel::Collective& ranks = parallel::Solo());

}  // namespace engram::compute
