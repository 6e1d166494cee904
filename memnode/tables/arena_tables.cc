#include "memnode/tables/arena_tables.h"

namespace engram::memnode {

Result<std::unique_ptr<net::FdServer>> ShareLocally(const Arena& arena) {
  if (arena.shared_fd() < 0) return std::unique_ptr<net::FdServer>();
  return net::FdServer::Start(arena.shared_fd());
}

Result<std::shared_ptr<ServedTables>> ArenaTables::Make(ServedParts parts,
                                                        std::shared_ptr<const Arena> arena,
                                                        obs::Metrics& metrics) {
  std::shared_ptr<ArenaTables> tables(new ArenaTables(std::move(parts), std::move(arena), metrics));
  ASSIGN_OR_RETURN(tables->local_, ShareLocally(*tables->arena_));
  tables->SetComplete();
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  return std::shared_ptr<ServedTables>(std::move(tables));
}

}  // namespace engram::memnode
