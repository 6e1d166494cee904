#include "memnode/tables/cold_tables.h"

#include <algorithm>
#include <set>

namespace engram::memnode {

ColdTables::ColdTables(TableParts parts, const TableReader& reader, std::unique_ptr<RowCache> cache,
                       const ColdOptions& options, obs::Metrics& metrics)
    : ServedTables(std::move(parts), metrics),
      reader_(reader),
      cache_bytes_(options.cache_bytes),
      residency_(plan()),
      cache_(std::move(cache)),
      cold_(reader, cache_.get(), options.reader) {}

Result<std::unique_ptr<RowCache>> ColdTables::MakeCache(const ColdOptions& options,
                                                        const TablePlan& plan) {
  if (options.cache_bytes == 0) return std::unique_ptr<RowCache>();
  return RowCache::Create(options.cache_bytes, table::StoredRowBytes(plan.row_bytes));
}

Status ColdTables::Pin(const std::vector<RowId>& wanted, uint64_t bytes_max) {
  const uint64_t room = PinnedRows::RowsThatFit(bytes_max, stored_row_bytes());
  std::set<RowId> taken;
  for (const RowId& id : wanted) {
    if (taken.size() >= room) break;
    if (id.layer_index >= layer_count()) continue;
    const LayerPlan& layer = plan().layers[id.layer_index];
    if (id.row >= layer.cut.total_rows) continue;
    const uint32_t partition = layer.cut.PartitionOf(id.row);
    if (!std::binary_search(layer.owned.begin(), layer.owned.end(), partition)) continue;
    taken.insert(id);
  }
  ASSIGN_OR_RETURN(pinned_, PinnedRows::Read(reader_, {taken.begin(), taken.end()}));
  return OkStatus();
}

Status ColdTables::Find(uint32_t layer_index, std::span<const uint64_t> rows,
                        std::span<const std::byte*> addresses) const {
  RETURN_IF_ERROR(residency_.Find(layer_index, rows, addresses));
  if (pinned_ == nullptr) return OkStatus();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (addresses[i] == nullptr) addresses[i] = pinned_->Find(layer_index, rows[i]);
  }
  return OkStatus();
}

uint64_t ColdTables::memory_bytes() const {
  return cache_bytes_ + (pinned_ == nullptr ? 0 : pinned_->memory_bytes());
}

std::optional<ServedTables::ColdFigures> ColdTables::cold_figures() const {
  ColdFigures figures;
  if (pinned_ != nullptr) figures.pinned_rows = pinned_->size();
  if (cache_ != nullptr) {
    figures.cache_hits = cache_->hits();
    figures.cache_misses = cache_->misses();
  }
  figures.pages_read = cold_.pages_read();
  return figures;
}

}  // namespace engram::memnode
