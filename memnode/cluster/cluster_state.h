// What the members of a cluster agree on: the map by which clients read, and, while it is being
// changed, the one that comes next. Small; kept by a membership (membership.h).
//
// A change has two steps, each a proposal: it *begins* (`next` is there: members that gain
// partitions fetch them, reads go on by `current`), and it is *committed* (`next` becomes
// `current`) or *cancelled* (`next` goes). Changes never overlap.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/table/placement.h"

namespace engram::memnode {

struct ClusterState {
  // Made by the first proposal, kept by all later ones; empty: the list of the settings, which was
  // never changed.
  std::string cluster;
  uint64_t revision = 0;  // one more with each proposal
  table::ClusterMap current;
  std::optional<table::ClusterMap> next;  // its epoch is one above current's
  std::string change;  // what is under way, for messages: "add m3"; empty when nothing is
  bool operator==(const ClusterState&) const = default;
};
inline constexpr size_t kChangeTextBytesMax = 256;

json::object ToJson(const ClusterState& state);
// INVALID_ARGUMENT begins with "cluster state".
Result<ClusterState> StateFromJson(const json::object& object);

// FAILED_PRECONDITION says why `after` is not one step after `before`: another cluster's, not the
// next revision, a change beside another one, an epoch that goes back or skips one, a map that is
// neither kept nor the one announced.
Status CheckStep(const ClusterState& before, const ClusterState& after);

// The steps. Begin: FAILED_PRECONDITION names the change that is under way. Commit, Cancel:
// FAILED_PRECONDITION when none is.
Result<ClusterState> Begin(const ClusterState& state, table::ClusterMap next, std::string change);
Result<ClusterState> Commit(const ClusterState& state);
Result<ClusterState> Cancel(const ClusterState& state);

}  // namespace engram::memnode
