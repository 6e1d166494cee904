// When a node is connected to, every path to it that is open is timed, so that each request can
// take the cheapest.
#pragma once

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/loop.h"
#include "common/client/lookup/node_paths.h"
#include "common/client/lookup/plan.h"

namespace engram::client {

// Times few and many rows of the attached node over each of its open paths and fits their costs.
// Zero where there is nothing to choose between. About 10 ms.
Result<PathCosts> MeasurePaths(LookupLoop& loop, uint32_t node, const NodePaths& paths,
                               const PlanContext& context, TimePoint deadline, const Clock& clock);

}  // namespace engram::client
