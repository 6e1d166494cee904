#include "memnode/node/node_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/base/clock.h"
#include "common/obs/log.h"
#include "common/table/hot_set.h"
#include "common/table/row_check.h"
#include "memnode/node/loader.h"
#include "memnode/store/import_progress.h"
#include "memnode/store/rocks_store.h"
#include "memnode/tables/procedural_tables.h"

namespace engram::memnode {
namespace {

constexpr double kFailingMax = 0.5;  // of lookups; a node of which more fail is not ready

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

NodeTables::NodeTables(const NodeConfig& config, obs::Metrics& metrics)
    : config_(config), metrics_(metrics) {
  if (config.arena_budget_mib == 0) return;
  memory_ = std::make_shared<MemoryBudget>(static_cast<uint64_t>(config.arena_budget_mib) << 20);
}

Result<std::unique_ptr<NodeTables>> NodeTables::Open(const NodeConfig& config,
                                                     obs::Metrics& metrics) {
  std::unique_ptr<NodeTables> tables(new NodeTables(config, metrics));
  RETURN_IF_ERROR(config.procedural() ? tables->OpenProcedural() : tables->OpenStore());
  MemoryScrubberOptions scrub;
  scrub.mib_per_s = static_cast<double>(config.arena_scrub_mib_s);
  tables->memory_scrubber_ = std::make_unique<MemoryScrubber>(
      [node = tables.get()] { return node->InMemory(); },
      tables->repairer_ == nullptr
          ? MemoryScrubber::Pause()
          : [repairer = tables->repairer_.get()] { return repairer->Pause(); },
      metrics, scrub);
  RETURN_IF_ERROR(tables->memory_scrubber_->started());
  return tables;
}

// Jobs end first, then background readers. Services must have ended: tables that sessions still
// held would have lost their store.
NodeTables::~NodeTables() {
  memory_scrubber_.reset();
  admin_.reset();
  main_.reset();
  versions_.reset();
  scrubber_.reset();
}

ArenaOptions NodeTables::Memory() const {
  ArenaOptions arena;
  arena.pages = config_.ArenaBacking();
  arena.shared = config_.SharesArena();
  arena.share_small_pages = config_.arena_share == "on";
  arena.numa_node = static_cast<int>(config_.arena_numa_node);
  return arena;
}

Status NodeTables::OpenProcedural() {
  const uint64_t budget = static_cast<uint64_t>(config_.arena_budget_mib) << 20;
  ASSIGN_OR_RETURN(main_, OpenProceduralTables(config_.Procedural(), config_.Map(),
                                               config_.node_name, Memory(), budget, metrics_));
  TellOpen(*main_, 0);
  return OkStatus();
}

Status NodeTables::OpenStore() {
  ASSIGN_OR_RETURN(store_, OpenRocksStore(config_.store_path,
                                          static_cast<uint64_t>(config_.store_reserve_mib) << 20));
  RETURN_IF_ERROR(CheckPagesAreNamed(*store_, config_.store_path));
  ModelRequest request;
  request.model_path = config_.model_path;
  request.model_name = config_.ModelName();
  request.model_version = config_.model_version;
  request.map = config_.Map();
  request.member = config_.node_name;
  request.import.threads = static_cast<int>(config_.model_import_threads);
  request.import.memory_mib = static_cast<uint64_t>(config_.model_import_memory_mib);
  request.import.base_version.clear();
  RETURN_IF_ERROR(StartScrubber());
  ASSIGN_OR_RETURN(versions_,
                   VersionManager::Open(
                       *store_,
                       [this](const Manifest& manifest, const std::atomic<bool>* cancel) {
                         return Load(manifest, cancel);
                       },
                       std::chrono::milliseconds(config_.limits_prepared_timeout_ms)));
  versions_->PauseRepairsBy([this] { return repairer_->Pause(); });
  AdminService::Hooks hooks;
  hooks.report = [this](TableSetId table_set, uint32_t layer_index, uint64_t page) {
    scrubber_->ReportDamage(table_set, layer_index, page);
  };
  hooks.changed = [this] { scrubber_->Refresh(); };
  hooks.resident = [this](TableSetId table_set) -> std::optional<ServedTables::Resident> {
    for (const TablesPtr& tables : Loaded()) {
      const table::TableIdentity& identity = tables->identity();
      if (TableSetIdOf(identity.model, identity.version) == table_set) return tables->resident();
    }
    return std::nullopt;
  };
  hooks.damage = [this] { return scrubber_->Bad(); };
  admin_ = std::make_unique<AdminService>(*versions_, *store_, config_.Map(), config_.node_name,
                                          std::move(hooks));
  if (request.model_name.empty()) return OkStatus();  // what the catalog has
  ASSIGN_OR_RETURN(const FoundModel model, FindOrImport(request, *store_));
  ASSIGN_OR_RETURN(main_, versions_->Adopt(model.manifest, model.imported));
  scrubber_->Refresh();
  return OkStatus();
}

Status NodeTables::StartScrubber() {
  Repairer::Options repair;
  repair.read_memory = [this](TableSetId table_set, uint32_t layer_index, uint64_t first,
                              uint64_t count, std::byte* out) {
    return CopyFromMemory(table_set, layer_index, first, count, out);
  };
  repairer_ = std::make_unique<Repairer>(*store_, std::move(repair));
  ScrubberOptions scrub;
  scrub.mib_per_s = static_cast<double>(config_.store_scrub_mib_s);
  scrub.idle_pause = std::chrono::seconds(config_.store_scrub_pause_s);
  scrubber_ = std::make_unique<Scrubber>(*store_, *repairer_, metrics_, scrub);
  return scrubber_->started();
}

std::vector<TablesPtr> NodeTables::Loaded() const {
  const std::lock_guard lock(mutex_);
  std::vector<TablesPtr> all;
  for (const auto& tables : loaded_) {
    if (TablesPtr alive = tables.lock()) all.push_back(std::move(alive));
  }
  return all;
}

// Procedural tables included.
std::vector<TablesPtr> NodeTables::InMemory() const {
  return versions_ == nullptr ? std::vector{main_} : Loaded();
}

// A verified copy of rows, for repairs.
bool NodeTables::CopyFromMemory(TableSetId table_set, uint32_t layer_index, uint64_t first,
                                uint64_t count, std::byte* out) const {
  for (const TablesPtr& tables : Loaded()) {
    const table::TableIdentity& identity = tables->identity();
    if (TableSetIdOf(identity.model, identity.version) != table_set) continue;
    return tables->CopyRows(layer_index, first, {out, count * tables->row_bytes()});
  }
  return false;
}

Result<OpenTablesOptions> NodeTables::TablesOptions(const Manifest& manifest) {
  OpenTablesOptions options;
  options.map = config_.Map();
  options.member = config_.node_name;
  options.arena = Memory();
  options.memory = memory_;
  options.send_buffer_bytes = config_.SendBufferBytes();
  const table::TableIdentity& identity = manifest.identity;
  options.keeper = this;
  options.serve_while_loading = config_.store_serve_while_loading;
  options.load_threads = static_cast<int>(config_.store_load_threads);
  options.cold.balance_period = std::chrono::seconds(config_.tiers_balance_s);
  options.cold.cache_bytes = static_cast<uint64_t>(config_.tiers_cache_mib) << 20;
  options.cold.reader.threads = static_cast<int>(config_.tiers_readers);
  if (config_.tiers_hot_set.empty() || memory_ == nullptr) return options;
  Result<std::vector<RowId>> rows =
      RowsToPin(config_.tiers_hot_set, identity, options.map, options.member, memory_->left());
  if (rows.ok()) {
    options.cold.pinned = *std::move(rows);
  } else if (identity.model == config_.ModelName() ||
             rows.status().code() != Code::kFailedPrecondition) {
    return rows.status();
  } else {  // another model than the one it is for
    obs::LogInfo(fmt::format("nothing is pinned model={} version={} why={}", identity.model,
                             identity.version, rows.status().message()));
  }
  return options;
}

void NodeTables::ReportDamage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                              const Status& why) {
  obs::LogError(why.message());
  scrubber_->ReportDamage(table_set, layer_index, page);
}

Status NodeTables::RepairPartition(const std::string& model, const std::string& version,
                                   uint32_t layer_index, uint32_t partition) {
  return repairer_->Repair(model, version, layer_index, partition).status();
}

Result<TablesPtr> NodeTables::Load(const Manifest& manifest, const std::atomic<bool>* cancel) {
  const TimePoint begin = Clock::Real().Now();
  ASSIGN_OR_RETURN(OpenTablesOptions options, TablesOptions(manifest));
  options.cancel = cancel;
  ASSIGN_OR_RETURN(const TablesPtr tables, OpenTables(*store_, manifest, options, metrics_));
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(loaded_, [](const auto& other) { return other.expired(); });
    loaded_.push_back(tables);
  }
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

Result<VersionManager::Found> NodeTables::Find(const std::string& model,
                                               const std::string& version) const {
  if (versions_ == nullptr) return VersionManager::Found{main_, 0};
  return versions_->Find(model, version);
}

// Of the rows, what lies in damaged pages and is not in memory.
double NodeTables::UnreadableShare(const ServedTables& tables,
                                   const std::vector<Damage>& damage) const {
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

std::string NodeTables::NotReady(double lookup_rows) const {
  if (versions_ == nullptr) return "";
  if (std::string why = versions_->NotServed(); !why.empty()) return why;
  const std::vector<Damage> damage = scrubber_->Bad();
  if (damage.empty()) return "";
  for (const TablesPtr& tables : Loaded()) {
    const double share = UnreadableShare(*tables, damage);
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

Result<json::object> NodeTables::Admin(const json::object& request) {
  if (admin_ == nullptr) {
    return FailedPrecondition("this node serves procedural tables: there is nothing to administer");
  }
  return admin_->Call(request);
}

void NodeTables::AddFigures(std::vector<obs::Sample>& samples) const {
  for (const TablesPtr& tables : InMemory()) AddServed(*tables, samples);
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
  for (const IncompleteImport& import : scrubber_->Incomplete()) {
    add(import.model, import.version, "incomplete");
  }
}

}  // namespace engram::memnode
