// What a change of a cluster's map would move (rule P4).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/identity.h"
#include "common/table/placement.h"

namespace engram::ctl {

struct MemberMove {
  std::string member;
  uint64_t partitions_before = 0, partitions_after = 0;
  uint64_t bytes_before = 0, bytes_after = 0;  // of rows
  uint64_t bytes_gained = 0;                   // to be copied to it
};
struct MovePlan {
  std::vector<MemberMove> members;  // of both maps, in the order of the first, then the others
  uint64_t bytes_moved() const;
};
// Of all these versions together. INVALID_ARGUMENT: rows that this build does not know.
Result<MovePlan> PlanMove(const table::ClusterMap& before, const table::ClusterMap& after,
                          const std::vector<table::TableIdentity>& versions);
// A table, and how long the copying takes when each member takes `mib_per_s` (0: not told).
std::string MoveTable(const MovePlan& plan, uint64_t mib_per_s);

}  // namespace engram::ctl
