#include "memnode/tables/open_tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "memnode/tables/arena_tables.h"
#include "memnode/tables/partition_loader.h"

namespace engram::memnode {

Result<std::shared_ptr<ServedTables>> OpenTables(RowStore& store, Manifest manifest,
                                                 const OpenTablesOptions& options,
                                                 obs::Metrics& metrics) {
  ServedParts parts;
  parts.identity = manifest.identity;
  parts.map = options.map;
  ASSIGN_OR_RETURN(parts.plan, MakePlan(parts.identity, options.map, options.member));
  if (!Covers(manifest, parts.plan)) {
    return FailedPrecondition(fmt::format(
        "version {} of {} was imported for members [{}] and lacks partitions that {} owns among "
        "[{}]: import it again from its folder",
        parts.identity.version, parts.identity.model, fmt::join(manifest.map.members, ", "),
        options.member, fmt::join(options.map.members, ", ")));
  }
  ASSIGN_OR_RETURN(auto stored, StoredRows::Open(store, std::move(manifest), options.keeper));
  const StoredRows& rows = *stored;
  parts.origin = std::move(stored);
  const uint64_t share_bytes = parts.plan.Map().size_bytes();
  const uint64_t room = options.memory == nullptr ? share_bytes : options.memory->left();
  RETURN_IF_ERROR(
      CheckRowsFit(std::min(room, share_bytes), options.arena.pages, options.send_buffer_bytes)
          .WithContext(
              fmt::format("model={} version={}", parts.identity.model, parts.identity.version)));
  PartialOptions partial = options.partial;
  partial.pages = options.arena.pages;
  partial.load_threads = options.load_threads;
  partial.serve_while_loading = options.serve_while_loading;
  partial.cancel = options.cancel;
  if (options.memory != nullptr) {
    parts.share = MemoryBudget::Share(options.memory);
    if (parts.share.Take(1, share_bytes) == 0) {
      return PartialTables::Open(std::move(parts), rows, store, std::move(partial), metrics);
    }
  }
  ASSIGN_OR_RETURN(Arena arena, Arena::Allocate(parts.plan, options.arena));
  if (options.serve_while_loading) {
    return PartialTables::Load(std::move(parts), rows, store, std::move(arena), partial, metrics);
  }
  PartitionLoadOptions load;
  load.threads = options.load_threads;
  load.cancel = options.cancel;
  RETURN_IF_ERROR(LoadPartitions(rows, PlacesIn(arena, parts.plan), load));
  return ArenaTables::Make(std::move(parts), std::make_shared<Arena>(std::move(arena)), metrics);
}

}  // namespace engram::memnode
