#include "common/client/local_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace engram::client {
namespace {

// Everything was gathered before this was made; remembers only which layers were asked for.
class GatheredTicket : public Ticket {
 public:
  explicit GatheredTicket(std::span<const LayerLookup> layers) {
    for (const LayerLookup& lookup : layers) asked_.push_back(lookup.layer_index);
  }
  Status Wait(uint32_t layer_index) override {
    if (std::find(asked_.begin(), asked_.end(), layer_index) != asked_.end()) return OkStatus();
    return InvalidArgument(
        fmt::format("this lookup did not ask for Engram layer index {}", layer_index));
  }
  bool Ready(uint32_t) const override { return true; }

 private:
  std::vector<uint32_t> asked_;
};

}  // namespace

Result<std::unique_ptr<LocalTable>> LocalTable::Open(const io::Checkpoint* checkpoint,
                                                     const table::TableLayout& layout,
                                                     table::TableIdentity identity) {
  table::EngramConfig config;
  config.head_dim = layout.row_format.head_dim;
  for (const table::LayerLayout& layer : layout.layers) config.layer_ids.push_back(layer.layer_id);
  ASSIGN_OR_RETURN(CheckpointTables tables, CheckpointTables::Open(checkpoint, config));
  RETURN_IF_ERROR(tables.CheckLayout(layout));
  return std::unique_ptr<LocalTable>(new LocalTable(std::move(tables), std::move(identity)));
}

Status LocalTable::CheckLookup(const LayerLookup& lookup) const {
  if (lookup.layer_index >= tables_.layer_count()) {
    return InvalidArgument(fmt::format("lookup in Engram layer index {}, the table set has {}",
                                       lookup.layer_index, tables_.layer_count()));
  }
  const size_t row_bytes = tables_.row_format().row_bytes();
  if (lookup.out.size() != lookup.rows.size() * row_bytes) {
    return InvalidArgument(fmt::format("buffer of {} bytes for {} rows of {} bytes in layer {}",
                                       lookup.out.size(), lookup.rows.size(), row_bytes,
                                       tables_.layer_id(lookup.layer_index)));
  }
  const uint64_t total_rows = tables_.rows(lookup.layer_index);
  for (const uint64_t row : lookup.rows) {
    if (row < total_rows) continue;
    return OutOfRange(fmt::format("row {} of layer {}, which has {} rows", row,
                                  tables_.layer_id(lookup.layer_index), total_rows));
  }
  return OkStatus();
}

Result<std::unique_ptr<Ticket>> LocalTable::Submit(std::span<const LayerLookup> layers,
                                                   const SubmitOptions&) {
  for (size_t i = 0; i < layers.size(); ++i) {
    RETURN_IF_ERROR(CheckLookup(layers[i]));
    for (size_t k = 0; k < i; ++k) {
      if (layers[k].layer_index != layers[i].layer_index) continue;
      return InvalidArgument(
          fmt::format("layer {} twice in a lookup", tables_.layer_id(layers[i].layer_index)));
    }
  }
  for (const LayerLookup& lookup : layers) {
    tables_.GatherRows(lookup.layer_index, lookup.rows, lookup.out.data());
    rows_asked_.fetch_add(lookup.rows.size(), std::memory_order_relaxed);
    const std::lock_guard lock(distinct_mutex_);
    distinct_.Start(lookup.rows.size());
    for (const uint64_t row : lookup.rows) distinct_.Insert(row);
    rows_distinct_.fetch_add(distinct_.count(), std::memory_order_relaxed);
  }
  RETURN_IF_ERROR(tables_.CheckUnchanged());
  return std::unique_ptr<Ticket>(std::make_unique<GatheredTicket>(layers));
}

SourceStats LocalTable::stats() const {
  SourceStats stats;
  stats.rows_asked = rows_asked_.load();
  stats.rows_distinct = rows_distinct_.load();
  return stats;
}

}  // namespace engram::client
