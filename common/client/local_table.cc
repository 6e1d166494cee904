#include "common/client/local_table.h"

#include <fmt/format.h>

namespace engram::client {

Result<std::unique_ptr<LocalTable>> LocalTable::Open(const io::Checkpoint* checkpoint,
                                                     const table::TableLayout& layout,
                                                     table::TableIdentity identity) {
  table::EngramConfig config;
  config.head_dim = layout.row_format.head_dim;
  for (const table::LayerLayout& layer : layout.layers) config.layer_ids.push_back(layer.layer_id);
  ASSIGN_OR_RETURN(CheckpointTables tables, CheckpointTables::Open(checkpoint, config));
  RETURN_IF_ERROR(tables.CheckLayout(layout));
  return std::unique_ptr<LocalTable>(
      new LocalTable(std::move(tables), layout, std::move(identity)));
}

Status LocalTable::CheckRows(const LayerLookup& lookup) const {
  const uint64_t total_rows = tables_.rows(lookup.layer_index);
  for (const uint64_t row : lookup.rows) {
    if (row < total_rows) continue;
    return OutOfRange(fmt::format("row {} of layer {}, which has {} rows", row,
                                  tables_.layer_id(lookup.layer_index), total_rows));
  }
  return OkStatus();
}

Result<Ticket> LocalTable::Submit(std::span<const LayerLookup> layers, const SubmitOptions&) {
  RETURN_IF_ERROR(CheckLookups(layout_, layers));
  for (const LayerLookup& lookup : layers) RETURN_IF_ERROR(CheckRows(lookup));
  for (const LayerLookup& lookup : layers) {
    tables_.GatherRows(lookup.layer_index, lookup.rows, lookup.out.data());
    rows_asked_.fetch_add(lookup.rows.size(), std::memory_order_relaxed);
    const std::lock_guard lock(distinct_mutex_);
    distinct_.Start(lookup.rows.size());
    for (const uint64_t row : lookup.rows) distinct_.Insert(row);
    rows_distinct_.fetch_add(distinct_.count(), std::memory_order_relaxed);
  }
  RETURN_IF_ERROR(tables_.CheckUnchanged());
  return Ticket::Done(layers);
}

SourceStats LocalTable::stats() const {
  SourceStats stats;
  stats.rows_asked = rows_asked_.load();
  stats.rows_distinct = rows_distinct_.load();
  return stats;
}

}  // namespace engram::client
