// `engram-compute serve`: the engine behind its HTTP API until a signal ends it.
#pragma once

#include "common/base/status.h"
#include "compute/parallel/collective.h"
#include "compute/session/config.h"

namespace engram::compute {

// Prints "ready http=HOST:PORT model=NAME instructions=ISA threads=N" once it answers. The first
// SIGTERM or SIGINT drains: new requests get 503, those accepted are finished within
// api.drain_timeout_s and then aborted. The second one ends at once.
Status RunServe(const ComputeConfig& config, parallel::Collective& ranks = parallel::Solo());

}  // namespace engram::compute
