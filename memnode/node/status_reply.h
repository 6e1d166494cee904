// A node's reply to a tool's {"command": "status"}: what it is, what it serves and what troubles
// it, as of now. Nothing in it waits for a disk, and a node that loads its tables gives it too.
//
//   {"member", "zone", "epoch", "members": [names],
//    "change": of the member list, under way ("": none), "change_problem": why this member is not
//       ready for it yet, "keeper": why the keeper of the list does not answer,
//    "run": a name that each run of the node has of its own,
//    "state": "joining" | "serving" | "draining", "loading": its tables are not open yet,
//    "why": why /health or /ready is 503 ("": it is not, or the state says it),
//    "clock_ns": of this run's monotonic clock, when the counters below were read,
//    "sessions", "rows_sent": of served lookups (rows that clients read out of shared memory or
//    one-sided are not counted), "recent_lookups", "recent_unreadable": of the last ten seconds,
//    "service_bounds_us": [numbers], "service_counts": [by bound, and one beyond all]: lookups by
//    their time from arrival to the last chunk handed over
// and of its tables:
//    "partitions", "rows": of published versions, this node's share; "rows_in_memory" of them: of
//    whole partitions, pinned ones and computed ones, not those of the cache,
//    "memory_bytes": of the rows of all versions,
//    "store": null (procedural tables, or loading) or {"bytes", "free_bytes" ("": not known),
//       "age_ms": of the last look at it, "waiting_ms": how long the present one takes (0: none is
//       under way), "problem": why it cannot be read or changed, "full": that is for want of room},
//    "versions": [as in the reply to "versions"],
//    "damage": [{"model", "version", "partitions", "why": of the first}]: not repaired by itself,
//    "unmended": partitions with damaged rows in memory, which could not be written again,
//    "reserved": [{"model", "holder"}]: tools that change a publication (reservations.h)}
//
// 64-bit numbers are decimal strings, as in other replies.
#pragma once

#include <cstdint>

#include "common/io/json.h"
#include "memnode/node/reservations.h"
#include "memnode/node/version_manager.h"
#include "memnode/store/version_catalog.h"
#include "memnode/tables/loaded_tables.h"
#include "memnode/upkeep/store_watch.h"
#include "memnode/upkeep/upkeep.h"

namespace engram::memnode {

json::object VersionJson(const VersionInfo& info, uint64_t stored_bytes,
                         const ServedTables::Resident& resident);

// Null pointers: of procedural tables, or of none that are open yet.
struct StatusSources {
  const VersionManager* versions = nullptr;
  const LoadedTables* loaded = nullptr;
  const Upkeep* upkeep = nullptr;
  StoreWatch* store = nullptr;
  const Reservations* reservations = nullptr;
};
// The part about the tables.
json::object TablesStatus(const StatusSources& sources);
// Whether clients find a version there: one that is published and loaded.
bool ServesAny(const json::object& tables_status);

}  // namespace engram::memnode
