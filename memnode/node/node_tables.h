// Everything a node knows about tables: the store, the versions in it, which of them are served,
// by which map of the cluster, how much memory they have, and their upkeep.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/obs/metrics.h"
#include "common/table/placement.h"
#include "memnode/cluster/peers.h"
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
  // `map`: of the cluster, as it is in force; where this node is no member, nothing is loaded. Rows
  // that the store lacks of it are read from `peers`, which may be null, before the model's folder.
  static Result<std::unique_ptr<NodeTables>> Open(const NodeConfig& config,
                                                  const table::ClusterMap& map, const Peers* peers,
                                                  obs::Metrics& metrics,
                                                  std::unique_ptr<RowStore> store = nullptr);
  // The store that the config names; null: procedural tables.
  static Result<std::unique_ptr<RowStore>> OpenStore(const NodeConfig& config);

  // The tables a client asks for; an empty version means the published one. Any thread.
  // By the map of `epoch`, in force or prepared; 0: the one in force. FAILED_PRECONDITION says what
  // there is; NOT_FOUND: this node is no member of the cluster.
  Result<VersionManager::Found> Find(const std::string& model, const std::string& version,
                                     uint32_t epoch = 0) const;

  // ---- Changes of the map (cluster/cluster_member.h).
  table::ClusterMap map() const;
  // Gets what this node lacks of `next` for each version it keeps, and has it served by `next` to
  // clients that ask for that epoch. A node that becomes a member gets the versions that its peers
  // keep. CANCELLED soon after `cancel` was set.
  Status PrepareMap(const table::ClusterMap& next, const Peers& peers,
                    const std::atomic<bool>& cancel);
  // The map that was prepared is in force.
  Status GoOver(const table::ClusterMap& map);
  void ForgetPrepared();
  struct MoveProgress {
    uint64_t rows_done = 0, rows_total = 0, bytes = 0;
  };
  MoveProgress move_progress() const;
  // What is published or pinned here, and in memory.
  std::vector<KeptVersion> Kept() const;
  // Null: procedural.
  AdminService* admin() { return admin_.get(); }
  RowStore* store() { return store_.get(); }

  // The tables the config names, once, while starting; the caller keeps them if it needs them.
  TablesPtr TakeMain();
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
  NodeTables(const NodeConfig& config, const table::ClusterMap& map, obs::Metrics& metrics);
  Status OpenProcedural();
  Status OpenVersions(const Peers* peers);
  Result<TablesPtr> Load(const Manifest& manifest, const std::atomic<bool>* cancel) override;
  // `memory`: null: what the settings allow.
  Result<TablesPtr> LoadBy(const table::ClusterMap& map, const Manifest& manifest,
                           const std::atomic<bool>* cancel,
                           std::shared_ptr<MemoryBudget> memory = nullptr);
  Result<TablesPtr> LoadBeside(const table::ClusterMap& map, const Manifest& manifest,
                               const std::atomic<bool>& cancel);
  Result<OpenTablesOptions> TablesOptions(const Manifest& manifest, const table::ClusterMap& map);
  Result<TablesPtr> ComputeBy(const table::ClusterMap& map);
  Status CatchUp(const Peers& peers);
  Result<Manifest> Gain(const std::string& model, const std::string& version,
                        const table::ClusterMap& map, const Peers& peers,
                        const std::atomic<bool>& cancel);
  Result<Manifest> GainFrom(const client::TableSource& source, const Manifest& known, bool stored,
                            const TablePlan& plan, const table::ClusterMap& map,
                            const std::atomic<bool>& cancel);
  Result<std::vector<VersionInfo>> Wanted(const Peers& peers) const;
  Result<VersionManager::Found> FindPrepared(const std::string& model,
                                             const std::string& version) const;
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
  std::unique_ptr<AdminService> admin_;       // null: procedural

  mutable std::mutex map_mutex_;  // guards what follows
  table::ClusterMap map_;         // in force
  TablesPtr main_;
  struct Prepared {
    table::ClusterMap map;
    std::vector<VersionManager::Moved> moved;
  };
  std::optional<Prepared> prepared_;
  MoveProgress moving_;
};

}  // namespace engram::memnode
