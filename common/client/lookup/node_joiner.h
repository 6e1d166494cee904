// Brings a memory node into service, the first time and again after it was lost: the data
// connection, the paths to its rows, the proof that they are the right rows, and what each path
// costs.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/client.h"
#include "common/client/lookup/connect.h"
#include "common/client/lookup/loop.h"
#include "common/net/control/control.h"

namespace engram::client {

// Blocks; one thread at a time, not the loop's.
class NodeJoiner {
 public:
  // All outlive this. `cluster`: its controls are taken out. `on_later_epoch`: told when a node
  // that was to come back is of a later epoch, or no member any more; may be null.
  NodeJoiner(const LookupClientOptions& options, Cluster cluster, const PlanContext& context,
             LookupLoop& loop, std::function<void(uint32_t)> on_later_epoch, const Clock& clock);

  // Every node, by the connections that `cluster` came with. Where rows have several owners, nodes
  // may be away as long as every row has one that is not: those are returned. UNAVAILABLE names the
  // first partition without an owner.
  Result<std::vector<uint32_t>> JoinAll();
  // A node that was lost, or away from the beginning. On an error it stays away, and says why as
  // its status.
  Status Rejoin(uint32_t node);

  // The rows that the nodes vouched for in JoinAll.
  const std::vector<net::KnownAnswer>& known_answers() const { return known_answers_; }

 private:
  Status Join(uint32_t node, std::unique_ptr<net::ControlClient> control, Nanos timeout);
  Status Prove(uint32_t node, const NodePaths& paths, const std::vector<net::KnownAnswer>& known,
               TimePoint deadline);
  Status CheckKnown(uint32_t node, Path path, const std::vector<net::KnownAnswer>& known,
                    TimePoint deadline);

  const LookupClientOptions options_;
  Cluster cluster_;
  const PlanContext& context_;
  LookupLoop& loop_;
  const std::function<void(uint32_t)> on_later_epoch_;
  const Clock& clock_;
  std::vector<net::KnownAnswer> known_answers_;
};

}  // namespace engram::client
