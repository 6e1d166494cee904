#include "memnode/node/node_tables.h"

#include <fmt/format.h>

#include "common/base/clock.h"
#include "common/obs/log.h"
#include "common/table/hot_set.h"
#include "common/table/row_check.h"
#include "memnode/node/loader.h"
#include "memnode/node/status_reply.h"
#include "memnode/store/import_progress.h"
#include "memnode/store/rocks_store.h"
#include "memnode/tables/procedural_tables.h"

namespace engram::memnode {
namespace {

// Enough of the hot set's rows to fill what `memory_bytes` has room for with those of one member's
// share.
Result<std::vector<RowId>> RowsToPin(const std::string& hot_set_path,
                                     const table::TableIdentity& identity,
                                     const table::ClusterMap& map, const std::string& member,
                                     uint64_t memory_bytes) {
  ASSIGN_OR_RETURN(const table::HotSet hot_set, table::ReadHotSet(hot_set_path));
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(identity, map, member));
  const uint64_t room =
      PinnedRows::RowsThatFit(memory_bytes, table::StoredRowBytes(plan.row_bytes));
  const Result<std::vector<table::RowOf>> rows =
      table::HotRows(hot_set, identity, room * map.members.size());
  if (!rows.ok()) return rows.status().WithContext("hot set " + hot_set_path);
  std::vector<RowId> ids;
  ids.reserve(rows->size());
  for (const table::RowOf& row : *rows) ids.push_back({row.layer_index, row.row});
  return ids;
}

void AddServed(const ServedTables& tables, std::vector<obs::Sample>& samples) {
  using Kind = obs::Sample::Kind;
  const table::TableIdentity& identity = tables.identity();
  const obs::Labels labels = {{"model", identity.model}, {"version", identity.version}};
  const auto add = [&](Kind kind, const char* name, const char* help, uint64_t value) {
    samples.push_back({name, help, kind, labels, static_cast<double>(value)});
  };
  add(Kind::kGauge, "engram_memnode_arena_bytes", "Memory of the rows", tables.memory_bytes());
  add(Kind::kGauge, "engram_memnode_owned_rows", "Rows of this node's share",
      tables.plan().OwnedRows());
  const std::optional<ServedTables::ColdFigures> cold = tables.cold_figures();
  if (!cold) return;
  const ServedTables::Resident resident = tables.resident();
  add(Kind::kGauge, "engram_memnode_resident_partitions", "Partitions in memory",
      resident.partitions);
  add(Kind::kGauge, "engram_memnode_owned_partitions", "Partitions of this node's share",
      resident.partitions_owned);
  add(Kind::kGauge, "engram_memnode_pinned_rows", "Rows kept in memory by the hot set",
      cold->pinned_rows);
  add(Kind::kCounter, "engram_memnode_row_cache_hits_total", "Rows found in the cache",
      cold->cache_hits);
  add(Kind::kCounter, "engram_memnode_row_cache_misses_total", "Rows not found in the cache",
      cold->cache_misses);
  add(Kind::kCounter, "engram_memnode_pages_read_total", "Pages read from the store for lookups",
      cold->pages_read);
  add(Kind::kCounter, "engram_memnode_partitions_moved_total",
      "Partitions that came into memory in place of others", cold->partitions_moved);
}

}  // namespace

NodeTables::NodeTables(const NodeConfig& config, const table::ClusterMap& map,
                       obs::Metrics& metrics)
    : config_(config), metrics_(metrics), map_(map) {
  if (config.arena_budget_mib == 0) return;
  memory_ = std::make_shared<MemoryBudget>(static_cast<uint64_t>(config.arena_budget_mib) << 20);
}

Result<std::unique_ptr<RowStore>> NodeTables::OpenStore(const NodeConfig& config) {
  if (config.procedural()) return std::unique_ptr<RowStore>();
  ASSIGN_OR_RETURN(
      std::unique_ptr<RowStore> store,
      OpenRocksStore(config.store_path, static_cast<uint64_t>(config.store_reserve_mib) << 20));
  RETURN_IF_ERROR(CheckPagesAreNamed(*store, config.store_path));
  return store;
}

Result<std::unique_ptr<NodeTables>> NodeTables::Open(const NodeConfig& config,
                                                     const table::ClusterMap& map,
                                                     const Peers* peers, obs::Metrics& metrics,
                                                     std::unique_ptr<RowStore> store) {
  std::unique_ptr<NodeTables> tables(new NodeTables(config, map, metrics));
  tables->store_ = std::move(store);
  Upkeep::Options upkeep;
  upkeep.store.mib_per_s = static_cast<double>(config.store_scrub_mib_s);
  upkeep.store.idle_pause = std::chrono::seconds(config.store_scrub_pause_s);
  upkeep.memory.mib_per_s = static_cast<double>(config.arena_scrub_mib_s);
  tables->upkeep_ =
      std::make_unique<Upkeep>(tables->store_.get(), tables->loaded_, metrics, upkeep);
  RETURN_IF_ERROR(config.procedural() ? tables->OpenProcedural() : tables->OpenVersions(peers));
  RETURN_IF_ERROR(tables->upkeep_->Start());
  if (tables->store_ != nullptr) {
    tables->store_watch_ = std::make_unique<StoreWatch>(*tables->store_, config.store_path);
    RETURN_IF_ERROR(tables->store_watch_->Start());
  }
  return tables;
}

ArenaOptions NodeTables::Memory() const {
  ArenaOptions arena;
  arena.pages = config_.ArenaBacking();
  arena.shared = config_.SharesArena();
  arena.share_small_pages = config_.arena_share == "on";
  arena.numa_node = static_cast<int>(config_.arena_numa_node);
  return arena;
}

Result<TablesPtr> NodeTables::ComputeBy(const table::ClusterMap& map) {
  const uint64_t budget = static_cast<uint64_t>(config_.arena_budget_mib) << 20;
  ASSIGN_OR_RETURN(const TablesPtr tables,
                   OpenProceduralTables(config_.Procedural(), map, config_.node_name, Memory(),
                                        budget, metrics_));
  loaded_.Add(tables);
  TellOpen(*tables, 0);
  return tables;
}

Status NodeTables::OpenProcedural() {
  if (!table::HasMember(map_, config_.node_name)) return OkStatus();
  ASSIGN_OR_RETURN(main_, ComputeBy(map_));
  return OkStatus();
}

Status NodeTables::OpenVersions(const Peers* peers) {
  const bool member = table::HasMember(map_, config_.node_name);
  if (member && peers != nullptr) {
    const Status caught_up = CatchUp(*peers);
    if (!caught_up.ok()) {
      obs::LogWarn(
          fmt::format("versions could not be got from other members why={}", caught_up.message()));
    }
  }
  const Nanos prepared_for = std::chrono::milliseconds(config_.limits_prepared_timeout_ms);
  ASSIGN_OR_RETURN(
      versions_,
      member ? VersionManager::Open(*store_, *this, upkeep_->repairer(), prepared_for)
             : VersionManager::OpenUnloaded(*store_, *this, upkeep_->repairer(), prepared_for));
  admin_ = std::make_unique<AdminService>(*versions_, *store_, loaded_, *upkeep_, map_,
                                          config_.node_name);
  ModelRequest request;
  request.model_path = config_.model_path;
  request.model_name = config_.ModelName();
  request.model_version = config_.model_version;
  request.map = map_;
  request.member = config_.node_name;
  request.import.threads = static_cast<int>(config_.model_import_threads);
  request.import.memory_mib = static_cast<uint64_t>(config_.model_import_memory_mib);
  if (!member || request.model_name.empty()) return OkStatus();  // what the catalog has
  ASSIGN_OR_RETURN(const FoundModel model, FindOrImport(request, *store_));
  ASSIGN_OR_RETURN(main_, versions_->Adopt(model.manifest, model.imported));
  return OkStatus();
}

Result<OpenTablesOptions> NodeTables::TablesOptions(const Manifest& manifest,
                                                    const table::ClusterMap& map) {
  OpenTablesOptions options;
  options.map = map;
  options.member = config_.node_name;
  options.arena = Memory();
  options.memory = memory_;
  options.send_buffer_bytes = config_.SendBufferBytes();
  const table::TableIdentity& identity = manifest.identity;
  options.keeper = upkeep_.get();
  options.serve_while_loading = config_.store_serve_while_loading;
  options.load_threads = static_cast<int>(config_.store_load_threads);
  options.partial.balance_period = std::chrono::seconds(config_.tiers_balance_s);
  options.partial.cache_bytes = static_cast<uint64_t>(config_.tiers_cache_mib) << 20;
  options.partial.reader.threads = static_cast<int>(config_.tiers_readers);
  if (config_.tiers_hot_set.empty() || memory_ == nullptr) return options;
  Result<std::vector<RowId>> rows =
      RowsToPin(config_.tiers_hot_set, identity, options.map, options.member, memory_->left());
  if (rows.ok()) {
    options.partial.pinned = *std::move(rows);
  } else if (identity.model == config_.ModelName() ||
             rows.status().code() != Code::kFailedPrecondition) {
    return rows.status();
  } else {  // another model than the one it is for
    obs::LogInfo(fmt::format("nothing is pinned model={} version={} why={}", identity.model,
                             identity.version, rows.status().message()));
  }
  return options;
}

Result<TablesPtr> NodeTables::Load(const Manifest& manifest, const std::atomic<bool>* cancel) {
  return LoadBy(map(), manifest, cancel);
}

Result<TablesPtr> NodeTables::LoadBy(const table::ClusterMap& map, const Manifest& manifest,
                                     const std::atomic<bool>* cancel,
                                     std::shared_ptr<MemoryBudget> memory) {
  const TimePoint begin = Clock::Real().Now();
  ASSIGN_OR_RETURN(OpenTablesOptions options, TablesOptions(manifest, map));
  if (memory != nullptr) options.memory = std::move(memory);
  options.cancel = cancel;
  ASSIGN_OR_RETURN(const TablesPtr tables, OpenTables(*store_, manifest, options, metrics_));
  loaded_.Add(tables);
  const std::chrono::duration<double> took = Clock::Real().Now() - begin;
  TellOpen(*tables, took.count());
  return tables;
}

void NodeTables::TellOpen(const ServedTables& tables, double seconds) {
  const table::TableIdentity& identity = tables.identity();
  obs::LogInfo(fmt::format(
      "tables open model={} version={} owned_rows={} of={} memory_bytes={} all_in_memory={} "
      "seconds={:.2f} digest={}",
      identity.model, identity.version, tables.plan().OwnedRows(), tables.plan().TotalRows(),
      tables.memory_bytes(), tables.complete(), seconds, identity.content_digest));
}

TablesPtr NodeTables::TakeMain() {
  const std::lock_guard lock(map_mutex_);
  return versions_ == nullptr ? main_ : std::move(main_);
}

Result<VersionManager::Found> NodeTables::Find(const std::string& model, const std::string& version,
                                               uint32_t epoch) const {
  {
    const std::lock_guard lock(map_mutex_);
    if (prepared_ && epoch == prepared_->map.epoch) return FindPrepared(model, version);
    if (!table::HasMember(map_, config_.node_name)) {
      return NotFound(fmt::format("{} is no member of the cluster at epoch {}: engramctl add",
                                  config_.node_name, map_.epoch));
    }
    if (epoch != 0 && epoch != map_.epoch) {
      return FailedPrecondition(
          fmt::format("the cluster is at epoch {} here, epoch {} is asked for", map_.epoch, epoch));
    }
    if (versions_ == nullptr) return VersionManager::Found{main_, 0};
  }
  return versions_->Find(model, version);
}

std::string NodeTables::NotReady(double lookup_rows) const {
  {
    const std::lock_guard lock(map_mutex_);
    if (!table::HasMember(map_, config_.node_name)) {
      return fmt::format("{} is no member of the cluster: engramctl add", config_.node_name);
    }
  }
  if (versions_ == nullptr) return "";
  if (std::string why = versions_->NotServed(); !why.empty()) return why;
  return upkeep_->Unreadable(lookup_rows);
}

Result<json::object> NodeTables::Admin(const json::object& request) {
  if (admin_ == nullptr) {
    return FailedPrecondition("this node serves procedural tables: there is nothing to administer");
  }
  return admin_->Call(request);
}

json::object NodeTables::StatusFigures() const {
  return TablesStatus({.versions = versions_.get(),
                       .loaded = &loaded_,
                       .upkeep = upkeep_.get(),
                       .store = store_watch_.get(),
                       .reservations = admin_ == nullptr ? nullptr : &admin_->reservations()});
}

void NodeTables::AddFigures(std::vector<obs::Sample>& samples) const {
  samples.push_back({.name = "engram_memnode_epoch",
                     .help = "Version of the member list that is in force here",
                     .labels = {},
                     .value = static_cast<double>(map().epoch)});
  const MoveProgress moving = move_progress();
  samples.push_back({.name = "engram_memnode_rows_to_move",
                     .help = "Rows that a change of the member list has yet to bring here",
                     .labels = {},
                     .value = static_cast<double>(moving.rows_total - moving.rows_done)});
  for (const TablesPtr& tables : loaded_.All()) AddServed(*tables, samples);
  if (versions_ != nullptr) AddStored(samples);
}

// What the store holds, served or not: also of imports that were never completed.
void NodeTables::AddStored(std::vector<obs::Sample>& samples) const {
  auto stored = store_->AllPageBytes();
  if (!stored.ok()) return;
  const auto add = [&](const std::string& model, const std::string& version, const char* state) {
    samples.push_back({.name = "engram_memnode_stored_bytes",
                       .help = "Pages in the store; incomplete: of an import that has not ended",
                       .labels = {{"model", model}, {"version", version}, {"state", state}},
                       .value = static_cast<double>((*stored)[TableSetIdOf(model, version)])});
  };
  for (const VersionInfo& info : versions_->List()) {
    if (!info.content_digest.empty()) add(info.model, info.version, "complete");
  }
  for (const IncompleteImport& import : upkeep_->incomplete()) {
    add(import.model, import.version, "incomplete");
  }
}

}  // namespace engram::memnode
