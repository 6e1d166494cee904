// Tables whose rows are all in one arena.
#pragma once

#include <memory>
#include <span>

#include "common/base/status.h"
#include "memnode/tables/arena.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

// Lets clients of this host map the arena, which outlives the server; null when it is not shared.
Result<std::unique_ptr<net::FdServer>> ShareLocally(const Arena& arena);

class ArenaTables final : public ServedTables {
 public:
  // Every row is in `arena`, laid out by the plan's Map().
  static Result<std::shared_ptr<ServedTables>> Make(ServedParts parts,
                                                    std::shared_ptr<const Arena> arena,
                                                    obs::Metrics& metrics);

  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const override {
    return arena_->Find(layer_index, rows, addresses);
  }
  std::span<const std::byte> memory() const override { return arena_->bytes(); }
  net::FdServer* local() const override { return local_.get(); }
  uint64_t memory_bytes() const override { return arena_->size_bytes(); }
  bool IsResident(uint32_t, uint32_t) const override { return true; }

 private:
  ArenaTables(ServedParts parts, std::shared_ptr<const Arena> arena, obs::Metrics& metrics)
      : ServedTables(std::move(parts), metrics), arena_(std::move(arena)) {}

  const std::shared_ptr<const Arena> arena_;  // benchmarks fill one for several tables
  std::unique_ptr<net::FdServer> local_;
};

}  // namespace engram::memnode
