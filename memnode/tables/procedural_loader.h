// A procedural table set (common/table/procedural.h) in this node's memory: no checkpoint, no
// store.
#pragma once

#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/table/placement.h"
#include "common/table/procedural.h"
#include "memnode/store/table_plan.h"
#include "memnode/tables/arena.h"

namespace engram::memnode {

struct ProceduralTables {
  table::TableIdentity identity;
  TablePlan plan;
  table::RowFormat format;
  std::optional<Arena> arena;  // none: they do not fit, and are computed when asked for
};

// Computes this member's rows into a new arena, on all CPUs; where they do not fit into
// `budget_bytes` (0: the memory available now), into none. Errors as MakeProceduralLayout and
// Arena::Allocate.
Result<ProceduralTables> LoadProcedural(const table::ProceduralSpec& spec,
                                        const table::ClusterMap& map, const std::string& member,
                                        const ArenaOptions& arena, uint64_t budget_bytes = 0);

}  // namespace engram::memnode
