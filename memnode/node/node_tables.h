// Everything a node knows about tables: the store, the versions in it, which of them are served,
// how much memory they have, and their upkeep.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/obs/metrics.h"
#include "memnode/node/admin_service.h"
#include "memnode/node/config.h"
#include "memnode/node/version_manager.h"
#include "memnode/store/row_store.h"
#include "memnode/tables/loaded_tables.h"
#include "memnode/tables/memory_budget.h"
#include "memnode/tables/open_tables.h"
#include "memnode/upkeep/store_watch.h"
#include "memnode/upkeep/upkeep.h"

namespace engram::memnode {

class NodeTables : private TableLoader {
 public:
  // Opens the store, imports the model the config names where that is missing, and loads what is to
  // be served. Or computes procedural tables. A null store: the config's. `config` and `metrics`
  // outlive it.
  static Result<std::unique_ptr<NodeTables>> Open(const NodeConfig& config, obs::Metrics& metrics,
                                                  std::unique_ptr<RowStore> store = nullptr);

  // The tables a client asks for; an empty version means the published one. Any thread.
  // FAILED_PRECONDITION says what there is.
  Result<VersionManager::Found> Find(const std::string& model, const std::string& version) const;
  // The tables the config names, once, while starting; the caller keeps them if it needs them.
  TablesPtr TakeMain() { return versions_ == nullptr ? main_ : std::move(main_); }
  // A client found a row of tables it was given damaged. Never waits.
  void ReportDamagedRow(const std::weak_ptr<const ServedTables>& tables, uint32_t layer_index,
                        uint64_t row) {
    upkeep_->CheckRow(tables, layer_index, row);
  }
  // A tool's request (admin_service.h).
  Result<json::object> Admin(const json::object& request);
  // For a tool that asks for the node's status (status_reply.h). Never waits for the disk.
  json::object StatusFigures() const;
  // Why most lookups would fail now, by what is served and what of it is damaged; empty: they would
  // not. `lookup_rows`: rows of a usual lookup. Never waits for the disk.
  std::string NotReady(double lookup_rows) const;
  // What a scrape shows of each version there is now. Never waits for the disk.
  void AddFigures(std::vector<obs::Sample>& samples) const;

 private:
  NodeTables(const NodeConfig& config, obs::Metrics& metrics);
  Status OpenProcedural();
  Status OpenVersions();
  Result<TablesPtr> Load(const Manifest& manifest, const std::atomic<bool>* cancel) override;
  Result<OpenTablesOptions> TablesOptions(const Manifest& manifest);
  void TellOpen(const ServedTables& tables, double seconds);
  ArenaOptions Memory() const;
  void AddStored(std::vector<obs::Sample>& samples) const;

  const NodeConfig& config_;
  obs::Metrics& metrics_;
  std::shared_ptr<MemoryBudget> memory_;     // null: no limit
  std::unique_ptr<RowStore> store_;          // null: procedural
  std::unique_ptr<StoreWatch> store_watch_;  // null: procedural
  LoadedTables loaded_;
  // Each uses what is above it. Sessions have ended before: tables that they still held would lose
  // their store.
  std::unique_ptr<Upkeep> upkeep_;
  std::unique_ptr<VersionManager> versions_;  // null: procedural
  TablesPtr main_;
  std::unique_ptr<AdminService> admin_;  // null: procedural
};

}  // namespace engram::memnode
