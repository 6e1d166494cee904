#include "memnode/tables/procedural_tables.h"

#include <algorithm>

#include "common/base/machine_limits.h"
#include "common/obs/log.h"
#include "common/table/row_check.h"
#include "memnode/tables/arena_tables.h"
#include "memnode/tables/partition_loader.h"

namespace engram::memnode {

Result<std::shared_ptr<ServedTables>> OpenProceduralTables(
    const table::ProceduralSpec& spec, const table::ClusterMap& map, const std::string& member,
    const ArenaOptions& arena, uint64_t budget_bytes, obs::Metrics& metrics) {
  ASSIGN_OR_RETURN(const table::TableLayout layout, table::MakeProceduralLayout(spec));
  ServedParts parts;
  parts.identity = table::MakeProceduralIdentity(spec, layout);
  parts.map = map;
  ASSIGN_OR_RETURN(parts.plan, MakePlan(parts.identity, map, member));
  auto rule = std::make_unique<ProceduralRows>(layout.row_format, spec.seed, parts.plan);
  const ProceduralRows& rows = *rule;
  parts.origin = std::move(rule);
  const uint64_t size_bytes = parts.plan.Map().size_bytes();
  const uint64_t room = budget_bytes > 0 ? budget_bytes : ReadMachineLimits().memory_bytes / 10 * 9;
  if (size_bytes > room) {
    obs::LogInfo("procedural rows do not fit into memory: each is computed when it is asked for");
    return ProceduralTables::Make(std::move(parts), rows, metrics);
  }
  if (budget_bytes > 0) RETURN_IF_ERROR(CheckRowsFit(size_bytes, arena.pages, 0));
  ASSIGN_OR_RETURN(Arena made, Arena::Allocate(parts.plan, arena));
  PartitionLoadOptions load;
  load.threads = static_cast<int>(ThreadsPerCpu(1));
  RETURN_IF_ERROR(LoadPartitions(rows, PlacesIn(made, parts.plan), load));
  return ArenaTables::Make(std::move(parts), std::make_shared<Arena>(std::move(made)), metrics);
}

void ProceduralRows::Compute(uint32_t layer_index, uint64_t row,
                             std::span<std::byte> stored) const {
  table::FillProceduralRow(format_, seed_, layer_index, row, stored.first(plan_.row_bytes));
  table::SealRow(layer_index, row, stored);
}

Status ProceduralRows::Load(const PartitionPlace& place) const {
  const table::LayerPartitions& cut = plan_.layers[place.layer_index].cut;
  const size_t stride = table::StoredRowBytes(plan_.row_bytes);
  const uint64_t first_row = cut.FirstRow(place.partition);
  for (uint64_t i = 0; i < cut.RowCount(place.partition); ++i) {
    Compute(place.layer_index, first_row + i, {place.stored + i * stride, stride});
  }
  return OkStatus();
}

Status ProceduralRows::ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const {
  table::FillProceduralRow(format_, seed_, layer_index, row, out);
  return OkStatus();
}

Result<std::shared_ptr<ServedTables>> ProceduralTables::Make(ServedParts parts,
                                                             const ProceduralRows& rows,
                                                             obs::Metrics& metrics) {
  std::shared_ptr<ProceduralTables> tables(new ProceduralTables(std::move(parts), rows, metrics));
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  return std::shared_ptr<ServedTables>(std::move(tables));
}

Status ProceduralTables::Find(uint32_t layer_index, std::span<const uint64_t> rows,
                              std::span<const std::byte*> addresses) const {
  std::vector<uint64_t> unused(rows.size());
  std::fill(addresses.begin(), addresses.end(), nullptr);
  return map_.FindOffsets(layer_index, rows, unused);
}

Status ProceduralTables::Locate(uint32_t layer_index, std::span<const uint64_t> rows,
                                std::vector<std::byte>& scratch,
                                std::span<const std::byte*> addresses) const {
  RETURN_IF_ERROR(Find(layer_index, rows, addresses));
  const size_t stride = stored_row_bytes();
  scratch.resize(std::max(scratch.size(), rows.size() * stride));
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<std::byte> stored = std::span(scratch).subspan(i * stride, stride);
    rows_.Compute(layer_index, rows[i], stored);
    addresses[i] = stored.data();
  }
  return OkStatus();
}

}  // namespace engram::memnode
