// A node's tables while the map of its cluster is changed (node_tables.h).
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/base/machine_limits.h"
#include "common/checkpoint/model_tables.h"
#include "common/obs/log.h"
#include "memnode/node/node_tables.h"

namespace engram::memnode {

table::ClusterMap NodeTables::map() const {
  const std::lock_guard lock(map_mutex_);
  return map_;
}

NodeTables::MoveProgress NodeTables::move_progress() const {
  const std::lock_guard lock(map_mutex_);
  return moving_;
}

std::vector<KeptVersion> NodeTables::Kept() const {
  std::vector<KeptVersion> kept;
  if (versions_ == nullptr) {
    const std::lock_guard lock(map_mutex_);
    if (main_ == nullptr) return kept;
    KeptVersion& only = kept.emplace_back();
    only.identity = main_->identity();
    only.info.model = only.identity.model;
    only.info.version = only.identity.version;
    only.info.published = true;
    return kept;
  }
  for (VersionInfo& info : versions_->List()) {
    if (!info.published && !info.pinned) continue;
    const auto found = versions_->Find(info.model, info.version);
    if (found.ok()) kept.push_back({std::move(info), found->tables->identity()});
  }
  return kept;
}

// map_mutex_ is held.
Result<VersionManager::Found> NodeTables::FindPrepared(const std::string& model,
                                                       const std::string& version) const {
  for (const VersionManager::Moved& moved : prepared_->moved) {
    if (!model.empty() && moved.info.model != model && versions_ != nullptr) continue;
    const bool wanted = version.empty() ? moved.info.published : moved.info.version == version;
    if (versions_ != nullptr && !wanted) continue;
    return VersionManager::Found{moved.tables, moved.info.published ? moved.info.generation : 0};
  }
  if (!table::HasMember(prepared_->map, config_.node_name)) {
    return NotFound(fmt::format("{} is no member of the cluster at epoch {}", config_.node_name,
                                prepared_->map.epoch));
  }
  return FailedPrecondition(fmt::format("version {} of {} is not served here at epoch {}", version,
                                        model, prepared_->map.epoch));
}

// What a member keeps in memory; of one that is to be a member, what its peers keep.
Result<std::vector<VersionInfo>> NodeTables::Wanted(const Peers& peers) const {
  if (!table::HasMember(map(), config_.node_name)) return peers.Versions();
  std::vector<VersionInfo> wanted;
  for (const VersionInfo& info : versions_->List()) {
    const bool configured =
        info.loaded && info.model == config_.ModelName() && info.version == config_.model_version;
    if (info.published || info.pinned || configured) wanted.push_back(info);
  }
  return wanted;
}

Status NodeTables::PrepareMap(const table::ClusterMap& next, const Peers& peers,
                              const std::atomic<bool>& cancel) {
  ForgetPrepared();
  std::vector<VersionManager::Moved> moved;
  if (table::HasMember(next, config_.node_name) && versions_ == nullptr) {
    ASSIGN_OR_RETURN(const TablesPtr tables, ComputeBy(next));
    moved.push_back({{}, tables});
  } else if (table::HasMember(next, config_.node_name)) {
    ASSIGN_OR_RETURN(const std::vector<VersionInfo> wanted, Wanted(peers));
    for (const VersionInfo& info : wanted) {
      ASSIGN_OR_RETURN(const Manifest manifest,
                       Gain(info.model, info.version, next, peers, cancel));
      ASSIGN_OR_RETURN(TablesPtr tables, LoadBeside(next, manifest, cancel));
      moved.push_back({info, std::move(tables)});
      DescribeManifest(manifest, moved.back().info);
    }
  }
  const std::lock_guard lock(map_mutex_);
  prepared_ = Prepared{next, std::move(moved)};
  return OkStatus();
}

// Where there is no memory for all rows beside those that are served, half of what there is takes
// some, and the others are read from the store.
Result<TablesPtr> NodeTables::LoadBeside(const table::ClusterMap& map, const Manifest& manifest,
                                         const std::atomic<bool>& cancel) {
  auto loaded = LoadBy(map, manifest, &cancel);
  if (loaded.status().code() != Code::kResourceExhausted || memory_ != nullptr) return loaded;
  obs::LogWarn(
      fmt::format("rows are read from the store until the next start model={} version={} "
                  "why={}",
                  manifest.identity.model, manifest.identity.version, loaded.status().message()));
  return LoadBy(map, manifest, &cancel,
                std::make_shared<MemoryBudget>(ReadMachineLimits().memory_bytes / 2));
}

// A complete version as it has to be for `map`.
Result<Manifest> NodeTables::Gain(const std::string& model, const std::string& version,
                                  const table::ClusterMap& map, const Peers& peers,
                                  const std::atomic<bool>& cancel) {
  ASSIGN_OR_RETURN(std::optional<Manifest> found, FindManifest(*store_, model, version));
  const bool stored = found.has_value();
  if (!stored) {
    ASSIGN_OR_RETURN(found, peers.FetchManifest(model, version));
  }
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(found->identity, map, config_.node_name));
  if (stored && Covers(*found, plan)) return *std::move(found);
  Status why;
  {
    const auto rows = peers.OpenRows(found->identity, cancel);
    auto gained = rows.ok() ? GainFrom(**rows, *found, stored, plan, map, cancel)
                            : Result<Manifest>(rows.status());
    if (gained.ok() || cancel.load()) return gained;
    why = gained.status();
  }
  const std::string folder = found->source.empty() ? config_.model_path : found->source;
  std::error_code error;
  if (folder.empty() || !std::filesystem::is_directory(folder, error)) {
    return why.WithContext(
        fmt::format("version {} of {} from other members, and its folder \"{}\" is not here",
                    version, model, folder));
  }
  obs::LogWarn(
      fmt::format("rows come from the folder, not from other members model={} version={} "
                  "why={}",
                  model, version, why.message()));
  ASSIGN_OR_RETURN(const client::ModelTables tables,
                   client::LoadModelTables(folder, model, version));
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(folder, tables));
  return GainFrom(*source, *found, stored, plan, map, cancel);
}

// `known` is this store's manifest, or a peer's.
Result<Manifest> NodeTables::GainFrom(const client::TableSource& source, const Manifest& known,
                                      bool stored, const TablePlan& plan,
                                      const table::ClusterMap& map,
                                      const std::atomic<bool>& cancel) {
  ImportOptions options;
  options.threads = static_cast<int>(config_.model_import_threads);
  options.memory_mib = static_cast<uint64_t>(config_.model_import_memory_mib);
  options.source = known.source;
  options.known = stored ? nullptr : &known;
  options.whole_pages = true;
  options.cancel = &cancel;
  options.on_progress = [this](const ImportProgress& progress) {
    const std::lock_guard lock(map_mutex_);
    moving_ = {progress.rows_done, progress.rows_total, progress.bytes_written};
  };
  table::TableIdentity identity = known.identity;
  identity.content_digest.clear();
  obs::LogInfo(fmt::format("getting rows for another map model={} version={} epoch={}",
                           identity.model, identity.version, map.epoch));
  ASSIGN_OR_RETURN(Manifest manifest, ImportTables(source, identity, map, plan, *store_, options));
  if (versions_ != nullptr) versions_->Imported(manifest);
  upkeep_->Refresh();
  return manifest;
}

Status NodeTables::GoOver(const table::ClusterMap& map) {
  std::optional<Prepared> prepared;
  {
    const std::lock_guard lock(map_mutex_);
    if (!prepared_ || !(prepared_->map == map)) {
      return InternalError(fmt::format("epoch {} was not prepared", map.epoch));
    }
    prepared = prepared_;
  }
  std::vector<TablesPtr> before;  // goes outside of the locks
  if (versions_ != nullptr) {
    ASSIGN_OR_RETURN(before, versions_->GoOver(prepared->moved));
  }
  const std::lock_guard lock(map_mutex_);
  map_ = map;
  if (versions_ == nullptr) {
    before.push_back(std::move(main_));
    main_ = prepared->moved.empty() ? nullptr : prepared->moved[0].tables;
  }
  prepared_.reset();
  moving_ = {};
  return OkStatus();
}

void NodeTables::ForgetPrepared() {
  std::optional<Prepared> unused;
  const std::lock_guard lock(map_mutex_);
  unused.swap(prepared_);
  moving_ = {};
}

// A member whose store lacks what the others keep, or partitions of the map in force, gets them.
Status NodeTables::CatchUp(const Peers& peers) {
  const std::atomic<bool> never = false;
  const table::ClusterMap map = this->map();
  ASSIGN_OR_RETURN(const std::vector<VersionInfo> versions, peers.Versions());
  ASSIGN_OR_RETURN(const std::vector<VersionInfo> catalog, ReadVersions(*store_));
  for (const VersionInfo& info : versions) {
    const auto known = std::ranges::find_if(catalog, [&](const VersionInfo& own) {
      return own.model == info.model && own.version == info.version;
    });
    RETURN_IF_ERROR(Gain(info.model, info.version, map, peers, never).status());
    if (known != catalog.end() && known->Wanted() && known->generation >= info.generation) continue;
    std::vector<RecordChange> records = {CatalogRecord(info)};
    for (VersionInfo own : catalog) {
      if (own.model != info.model || own.version == info.version || !own.published) continue;
      if (!info.published) continue;
      own.published = false;
      records.push_back(CatalogRecord(own));
    }
    RETURN_IF_ERROR(store_->WriteRecords(records));
  }
  return OkStatus();
}

}  // namespace engram::memnode
