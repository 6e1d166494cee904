// The changes of a cluster's map that tools offer, on the map itself.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/table/placement.h"

namespace engram::ctl {

// INVALID_ARGUMENT or FAILED_PRECONDITION says why the map cannot be changed so; a changed map is
// valid.

struct NewMember {
  std::string name, address, zone;
  uint32_t weight = 1;
};
Result<table::ClusterMap> WithMember(table::ClusterMap map, const NewMember& added);
Result<table::ClusterMap> WithoutMember(table::ClusterMap map, const std::string& name);
Result<table::ClusterMap> WithReplicas(table::ClusterMap map, uint32_t replicas);
// Of some members, by name.
Result<table::ClusterMap> WithWeights(table::ClusterMap map,
                                      const std::vector<std::pair<std::string, uint32_t>>& weights);

}  // namespace engram::ctl
