// A rank other than 0: computes its part of every step that rank 0 announces, and keeps the same
// pages and sequence states as rank 0 does.
#pragma once

#include "common/base/status.h"
#include "compute/model/transformer.h"

namespace engram::compute {

// Returns when rank 0 ends. Errors: what the ranks do together failed (then the process should
// end, and with it the others), or rank 0 runs another program.
Status Follow(const ModelConfig& config, const Transformer& transformer, PagePool& pages,
              parallel::Collective& ranks);

}  // namespace engram::compute
