#include "memnode/node_tables.h"

#include <fmt/format.h>

#include "common/base/clock.h"
#include "common/obs/log.h"
#include "memnode/loader.h"
#include "memnode/procedural_loader.h"
#include "memnode/rocks_store.h"

namespace engram::memnode {

Result<std::unique_ptr<NodeTables>> NodeTables::Open(const NodeConfig& config,
                                                     obs::Metrics& metrics) {
  std::unique_ptr<NodeTables> tables(new NodeTables(config, metrics));
  RETURN_IF_ERROR(config.procedural() ? tables->OpenProcedural() : tables->OpenStore());
  return tables;
}

NodeTables::~NodeTables() = default;

ArenaOptions NodeTables::Memory() const {
  ArenaOptions arena;
  arena.pages = config_.ArenaBacking();
  arena.shared = config_.SharesArena();
  arena.numa_node = static_cast<int>(config_.arena_numa_node);
  return arena;
}

Status NodeTables::OpenProcedural() {
  ASSIGN_OR_RETURN(ProceduralTables made, LoadProcedural(config_.Procedural(), config_.Map(),
                                                         config_.node_name, Memory()));
  ASSIGN_OR_RETURN(
      main_, ServedTables::InMemory(std::move(made.identity), std::move(made.plan),
                                    std::make_shared<Arena>(std::move(made.arena)), metrics_));
  return OkStatus();
}

Status NodeTables::OpenStore() {
  ASSIGN_OR_RETURN(store_, OpenRocksStore(config_.store_path));
  ModelRequest request;
  request.model_path = config_.model_path;
  request.model_name = config_.ModelName();
  request.model_version = config_.model_version;
  request.map = config_.Map();
  request.member = config_.node_name;
  request.import.threads = static_cast<int>(config_.model_import_threads);
  request.import.memory_mib = static_cast<uint64_t>(config_.model_import_memory_mib);
  ASSIGN_OR_RETURN(const FoundModel model, FindOrImport(request, *store_));
  ASSIGN_OR_RETURN(main_, Load(model.manifest));
  return OkStatus();
}

OpenTablesOptions NodeTables::TablesOptions(const Manifest&) {
  OpenTablesOptions options;
  options.map = config_.Map();
  options.member = config_.node_name;
  options.arena = Memory();
  options.memory_bytes = static_cast<uint64_t>(config_.arena_budget_mib) << 20;
  options.serve_while_loading = config_.store_serve_while_loading;
  options.load_threads = static_cast<int>(config_.store_load_threads);
  options.balance_period = std::chrono::seconds(config_.tiers_balance_s);
  options.tier.cache_bytes = static_cast<uint64_t>(config_.tiers_cache_mib) << 20;
  options.tier.cold.threads = static_cast<int>(config_.tiers_readers);
  return options;
}

Result<std::shared_ptr<const ServedTables>> NodeTables::Load(const Manifest& manifest) {
  const TimePoint begin = Clock::Real().Now();
  ASSIGN_OR_RETURN(const std::shared_ptr<const ServedTables> tables,
                   ServedTables::Open(*store_, manifest, TablesOptions(manifest), metrics_));
  const std::chrono::duration<double> took = Clock::Real().Now() - begin;
  TellOpen(*tables, took.count());
  return tables;
}

void NodeTables::TellOpen(const ServedTables& tables, double seconds) {
  const table::TableIdentity& identity = tables.identity();
  const obs::Labels labels = {{"model", identity.model}, {"version", identity.version}};
  metrics_.GetGauge("engram_memnode_arena_bytes", "Memory of the rows", labels)
      .Set(static_cast<double>(tables.memory_bytes()));
  metrics_.GetGauge("engram_memnode_owned_rows", "Rows of this node's share", labels)
      .Set(static_cast<double>(tables.plan().OwnedRows()));
  obs::LogInfo(fmt::format(
      "tables open model={} version={} owned_rows={} of={} memory_bytes={} all_in_memory={} "
      "seconds={:.2f} digest={}",
      identity.model, identity.version, tables.plan().OwnedRows(), tables.plan().TotalRows(),
      tables.memory_bytes(), tables.complete(), seconds, identity.content_digest));
}

Result<NodeTables::Found> NodeTables::Find(const std::string&, const std::string&) const {
  return Found{main_, 0};
}

}  // namespace engram::memnode
