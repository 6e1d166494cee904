// Membership: the seam under the keeper of a cluster's state. Static: each member keeps its own
// copy and tools propose to all of them (static_membership.h); etcd: one copy, which members watch
// (etcd_membership.h). Nothing here votes.
//
// Any thread. No call takes longer than a few seconds. Losing the keeper stops changes, and nothing
// else.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/cluster/cluster_state.h"

namespace engram::memnode {

class Membership {
 public:
  virtual ~Membership() = default;

  // UNAVAILABLE: the keeper cannot be reached. NOT_FOUND: it has no state yet.
  virtual Result<ClusterState> Read() = 0;

  // Calls `told` with the state in force, if there is one, and with each newer one, in order, on
  // one thread of the membership's; states may be skipped, the newest never is. Called once.
  using Told = std::function<void(const ClusterState& state)>;
  virtual Status Watch(Told told) = 0;

  // Replaces the state of revision `after.revision - 1` (1: where there is none), or changes
  // nothing. FAILED_PRECONDITION: CheckStep's, or another proposal came first; UNAVAILABLE: it may
  // have been accepted, and Read tells.
  virtual Status Propose(const ClusterState& after) = 0;

  // Takes over a later state that another member tells, however many proposals later: of a member
  // that was away, or is being added. FAILED_PRECONDITION: of another cluster, or not a later one.
  // Nothing to do where a keeper tells it.
  virtual Status Adopt(const ClusterState& /*later*/) { return OkStatus(); }

  // This member has all it needs for the change that began with `revision`. Repeated at will.
  virtual Status TellReady(uint64_t revision, const std::string& member) = 0;
  // The members that have told so.
  virtual Result<std::vector<std::string>> Ready(uint64_t revision) = 0;

  // Whether a proposal to one member reaches all of them.
  virtual bool shared() const = 0;

  // Why the keeper cannot be reached now, for /ready, status and logs; ok: it can.
  virtual Status health() const = 0;
};

}  // namespace engram::memnode
