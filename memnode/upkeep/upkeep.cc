#include "memnode/upkeep/upkeep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/obs/log.h"

namespace engram::memnode {
namespace {

constexpr double kFailingMax = 0.5;  // of lookups; a node of which more fail is not ready

// Of the rows, what lies in damaged pages and is not in memory.
double UnreadableShare(const ServedTables& tables, const std::vector<Damage>& damage) {
  const table::TableIdentity& identity = tables.identity();
  const TableSetId id = TableSetIdOf(identity.model, identity.version);
  uint64_t rows = 0;
  for (const Damage& bad : damage) {
    if (bad.table_set != id || bad.layer_index >= tables.layer_count()) continue;
    const LayerPlan& layer = tables.plan().layers[bad.layer_index];
    if (!std::binary_search(layer.owned.begin(), layer.owned.end(), bad.partition) ||
        tables.IsResident(bad.layer_index, bad.partition)) {
      continue;
    }
    rows += bad.page ? layer.cut.rows_per_page : layer.cut.RowCount(bad.partition);
  }
  return static_cast<double>(rows) /
         static_cast<double>(std::max<uint64_t>(1, tables.plan().OwnedRows()));
}

}  // namespace

Upkeep::Upkeep(RowStore* store, const LoadedTables& loaded, obs::Metrics& metrics,
               const Options& options)
    : loaded_(loaded),
      store_(store == nullptr ? nullptr
                              : std::make_unique<OfStore>(*store, loaded, metrics, options.store)),
      memory_scrubber_(loaded, store_ == nullptr ? nullptr : &store_->repairer, metrics,
                       options.memory) {}

Status Upkeep::Start() {
  if (store_ != nullptr) RETURN_IF_ERROR(store_->scrubber.Start());
  return memory_scrubber_.Start();
}

void Upkeep::ReportDamage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                          const Status& why) {
  obs::LogError(why.message());
  CheckPage(table_set, layer_index, page);
}

Status Upkeep::RepairPartition(const std::string& model, const std::string& version,
                               uint32_t layer_index, uint32_t partition,
                               const std::atomic<bool>& given_up) {
  return store_->repairer.Repair(model, version, layer_index, partition, &given_up).status();
}

void Upkeep::CheckPage(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  store_->scrubber.ReportDamage(table_set, layer_index, page);
}

void Upkeep::CheckRow(const std::weak_ptr<const ServedTables>& tables, uint32_t layer_index,
                      uint64_t row) {
  memory_scrubber_.Report(tables, layer_index, row);
}

std::string Upkeep::Unreadable(double lookup_rows) const {
  const std::vector<Damage> bad = damage();
  if (bad.empty()) return "";
  for (const TablesPtr& tables : loaded_.All()) {
    const double share = UnreadableShare(*tables, bad);
    const double fails = 1 - std::pow(1 - std::min(1.0, share), lookup_rows);
    if (fails < kFailingMax) continue;
    return fmt::format(
        "damaged pages hold {:.3g} % of the rows of version {} of {}: of lookups of {:.0f} rows "
        "{:.0f} % fail; engramctl verify lists them",
        share * 100, tables->identity().version, tables->identity().model, lookup_rows,
        fails * 100);
  }
  return "";
}

}  // namespace engram::memnode
