#include "memnode/tables/procedural_loader.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "common/base/machine_limits.h"
#include "common/base/threads.h"

namespace engram::memnode {
namespace {

void FillPartition(const table::RowFormat& format, uint64_t seed, uint32_t layer_index,
                   uint32_t partition, const LayerPlan& layer, Arena& arena) {
  const uint32_t row_bytes = format.row_bytes();
  const uint32_t batch = layer.cut.rows_per_page;
  std::vector<std::byte> rows(size_t{batch} * row_bytes);
  const uint64_t row_count = layer.cut.RowCount(partition);
  for (uint64_t first = 0; first < row_count; first += batch) {
    const uint64_t count = std::min<uint64_t>(batch, row_count - first);
    for (uint64_t i = 0; i < count; ++i) {
      table::FillProceduralRow(format, seed, layer_index, layer.cut.FirstRow(partition) + first + i,
                               std::span(rows).subspan(i * row_bytes, row_bytes));
    }
    arena.PutRows(layer_index, partition, first, std::span(rows).first(count * row_bytes));
  }
}

}  // namespace

Result<ProceduralTables> LoadProcedural(const table::ProceduralSpec& spec,
                                        const table::ClusterMap& map, const std::string& member,
                                        const ArenaOptions& arena, uint64_t budget_bytes) {
  ASSIGN_OR_RETURN(const table::TableLayout layout, table::MakeProceduralLayout(spec));
  ProceduralTables loaded;
  loaded.identity = table::MakeProceduralIdentity(spec, layout);
  ASSIGN_OR_RETURN(loaded.plan, MakePlan(loaded.identity, map, member));
  loaded.format = layout.row_format;
  const uint64_t room = budget_bytes > 0 ? budget_bytes : ReadMachineLimits().memory_bytes / 10 * 9;
  if (loaded.plan.Map().size_bytes() > room) return loaded;
  if (budget_bytes > 0) {
    RETURN_IF_ERROR(CheckRowsFit(loaded.plan.Map().size_bytes(), arena.pages, 0));
  }
  ASSIGN_OR_RETURN(loaded.arena, Arena::Allocate(loaded.plan, arena));
  std::vector<std::pair<uint32_t, uint32_t>> partitions;  // layer index, partition
  for (uint32_t i = 0; i < loaded.plan.layers.size(); ++i) {
    for (const uint32_t partition : loaded.plan.layers[i].owned)
      partitions.emplace_back(i, partition);
  }
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t at = next++; at < partitions.size(); at = next++) {
      const auto [layer_index, partition] = partitions[at];
      FillPartition(layout.row_format, spec.seed, layer_index, partition,
                    loaded.plan.layers[layer_index], *loaded.arena);
    }
  };
  RunOnThreads(ThreadsPerCpu(1), "procedural", work);  // fewer take longer, no more
  return loaded;
}

}  // namespace engram::memnode
