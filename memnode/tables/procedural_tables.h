// A procedural table set (common/table/procedural.h): no checkpoint, no store.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/placement.h"
#include "common/table/procedural.h"
#include "memnode/tables/arena.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

// Computes this member's rows into an arena, on all CPUs; where they do not fit into `budget_bytes`
// (0: the memory available now), into none: each is computed when it is asked for. Errors as
// MakeProceduralLayout and Arena::Allocate.
Result<std::shared_ptr<ServedTables>> OpenProceduralTables(
    const table::ProceduralSpec& spec, const table::ClusterMap& map, const std::string& member,
    const ArenaOptions& arena, uint64_t budget_bytes, obs::Metrics& metrics);

class ProceduralRows final : public RowOrigin {
 public:
  ProceduralRows(table::RowFormat format, uint64_t seed, TablePlan plan)
      : format_(format), seed_(seed), plan_(std::move(plan)) {}

  // One stored row.
  void Compute(uint32_t layer_index, uint64_t row, std::span<std::byte> stored) const;
  Status Load(const PartitionPlace& place) const override;
  Status ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const override;

 private:
  const table::RowFormat format_;
  const uint64_t seed_;
  const TablePlan plan_;
};

// No row in memory.
class ProceduralTables final : public ServedTables {
 public:
  // parts.origin is `rows`.
  static Result<std::shared_ptr<ServedTables>> Make(ServedParts parts, const ProceduralRows& rows,
                                                    obs::Metrics& metrics);

  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const override;
  Status Locate(uint32_t layer_index, std::span<const uint64_t> rows,
                std::vector<std::byte>& scratch,
                std::span<const std::byte*> addresses) const override;
  uint64_t memory_bytes() const override { return 0; }
  bool IsResident(uint32_t, uint32_t) const override { return false; }

 private:
  ProceduralTables(ServedParts parts, const ProceduralRows& rows, obs::Metrics& metrics)
      : ServedTables(std::move(parts), metrics), rows_(rows), map_(plan().Map()) {}

  const ProceduralRows& rows_;
  const table::ArenaMap map_;  // for what is owned, and its errors
};

}  // namespace engram::memnode
