// States of a cluster for the tests of its memberships.
#pragma once

#include <string>
#include <vector>

#include "memnode/cluster/cluster_state.h"

namespace engram::memnode {

inline table::ClusterMap MapOf(std::vector<std::string> members, uint32_t epoch = 1) {
  table::ClusterMap map;
  map.members = std::move(members);
  map.epoch = epoch;
  return map;
}

inline ClusterState FirstState(const std::string& cluster = "cafe") {
  ClusterState state;
  state.cluster = cluster;
  state.revision = 1;
  state.current = MapOf({"m0", "m1"});
  return state;
}

// The beginning of a change that adds `member`.
inline ClusterState Adding(const ClusterState& before, const std::string& member) {
  table::ClusterMap next = before.current;
  next.members.push_back(member);
  ClusterState named = before;
  if (named.cluster.empty()) named.cluster = "cafe";
  auto after = Begin(named, next, "add " + member);
  CHECK(after.ok()) << after.status().message();
  return *std::move(after);
}

inline ClusterState Committed(const ClusterState& before) {
  auto after = Commit(before);
  CHECK(after.ok()) << after.status().message();
  return *std::move(after);
}

}  // namespace engram::memnode
