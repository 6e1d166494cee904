// At connect: every open path proves itself on the known rows, and is timed, so that each request
// can take the cheapest.
#pragma once

#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/connect.h"
#include "common/client/lookup/loop.h"
#include "common/client/lookup/plan.h"
#include "common/client/row_source.h"

namespace engram::client {

// CheckKnownRows over each path that a node has open. Nothing else is in flight.
Status CheckKnownPaths(RowSource& source, LookupLoop& loop, const std::vector<KnownRow>& known,
                       const table::TableLayout& layout, TimePoint deadline);

// Times few and many rows of each node over each of its open paths and fits their costs. A node
// with one open path is not measured. About 10 ms a node.
Status CalibratePaths(RowSource& source, LookupLoop& loop, const PlanContext& context,
                      TimePoint deadline, const Clock& clock);

}  // namespace engram::client
