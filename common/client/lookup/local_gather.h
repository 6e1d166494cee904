// The shortest way there is: every node's memory is mapped here, so rows are copied and checked in
// the caller's own thread, as they were asked for. Duplicates stay: finding them costs more (6 ns
// an id) than copying a row again out of the cache.
#pragma once

#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/client/lookup/node_paths.h"
#include "common/client/lookup/plan.h"
#include "common/client/row_source.h"

namespace engram::client {

// One node's mapped memory, and where its rows are counted. Both outlive the gather.
struct LocalNode {
  const NodePaths* paths = nullptr;
  NodeCounters* counters = nullptr;
};

// Copies the rows of one layer, checked to fit its buffer, out of the nodes' memory; thread-safe.
// OUT_OF_RANGE for a row past the layer's end; DATA_LOSS names the node of a damaged row.
Status GatherLocally(const PlanContext& context, std::span<const LocalNode> nodes,
                     const LayerLookup& lookup);

}  // namespace engram::client
