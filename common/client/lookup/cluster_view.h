// What the threads of callers may know of the cluster's nodes: an immutable snapshot, replaced by
// the loop when a node is lost, skipped, or back.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/client/lookup/node_paths.h"
#include "common/client/lookup/step.h"

namespace engram::client {

struct NodeView {
  std::shared_ptr<const NodePaths> paths;  // shared with lookups under way; null: never connected
  Status gone;                             // ok: connected, and its rows are proven
  Status skipped;                          // ok: worth asking; mapped memory is read regardless
  Status health;                           // ok: answers, as far as it is watched
  TimePoint suspect_until;                 // it was silent while a request was late
};
using ClusterView = std::vector<NodeView>;

// Whether a lookup of so many rows would take the local path at every node.
bool AllLocal(const ClusterView& view, size_t rows);

// The rows of one layer out of the nodes' mapped memory into `lookup.out`, in the caller's thread;
// every node's local path is open. UNAVAILABLE when a node is gone, OUT_OF_RANGE for a row past the
// end, DATA_LOSS names the node and the damaged row. Thread-safe.
Status GatherLocally(const PlanContext& context, const ClusterView& view,
                     std::span<NodeCounters> counters, const LayerLookup& lookup);
// The rows of one request of a step, out of the mapped memory of its node. Thread-safe.
Status PlaceLocally(Step& step, const NodeRequest& request, const NodePaths& paths,
                    NodeCounters& counters);

}  // namespace engram::client
