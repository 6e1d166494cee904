// A procedural table set (common/table/procedural.h) in this node's memory: no checkpoint, no
// store.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/table/placement.h"
#include "common/table/procedural.h"
#include "memnode/arena.h"
#include "memnode/arena.h"
#include "memnode/table_plan.h"

namespace engram::memnode {

struct ProceduralTables {
  table::TableIdentity identity;
  TablePlan plan;
  Arena arena;
};

// Computes this member's rows into a new arena, on all CPUs. Errors as MakeProceduralLayout and
// Arena::Allocate.
Result<ProceduralTables> LoadProcedural(const table::ProceduralSpec& spec, const table::ClusterMap& map,
                                    const std::string& member, const ArenaOptions& arena);

}  // namespace engram::memnode
