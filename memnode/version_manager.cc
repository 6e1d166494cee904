#include "memnode/version_manager.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "common/io/json.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

constexpr char kCatalog[] = "catalog/";
constexpr char kDropping[] = "dropping/";

std::string CatalogKey(const std::string& model, const std::string& version) {
  return fmt::format("{}{:016x}", kCatalog, TableSetIdOf(model, version));
}

RecordChange CatalogRecord(const VersionInfo& info) {
  return {CatalogKey(info.model, info.version),
          json::serialize(
              json::object{{"model", info.model},
                           {"version", info.version},
                           {"generation", std::to_string(info.generation)},
                           {"published", info.published},
                           {"prepared", info.prepared},
                           {"prepared_generation", std::to_string(info.prepared_generation)},
                           {"pinned", info.pinned}})};
}

Result<uint64_t> ReadNumber(const json::object& object, std::string_view key) {
  ASSIGN_OR_RETURN(const std::string text, io::GetString(object, key, "catalog"));
  uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return value;
  return DataLoss(fmt::format("the catalog of versions is damaged: {} is \"{}\"", key, text));
}

Result<VersionInfo> ParseCatalogRecord(const std::string& text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "catalog"));
  if (!value.is_object()) return DataLoss("the catalog of versions is damaged: no object");
  const json::object& object = value.get_object();
  VersionInfo info;
  ASSIGN_OR_RETURN(info.model, io::GetString(object, "model", "catalog"));
  ASSIGN_OR_RETURN(info.version, io::GetString(object, "version", "catalog"));
  ASSIGN_OR_RETURN(info.generation, ReadNumber(object, "generation"));
  ASSIGN_OR_RETURN(info.published, io::GetBool(object, "published", "catalog"));
  ASSIGN_OR_RETURN(info.prepared, io::GetBool(object, "prepared", "catalog"));
  ASSIGN_OR_RETURN(info.prepared_generation, ReadNumber(object, "prepared_generation"));
  ASSIGN_OR_RETURN(info.pinned, io::GetBool(object, "pinned", "catalog"));
  return info;
}

void DescribeManifest(const Manifest& manifest, VersionInfo& info) {
  info.model = manifest.identity.model;
  info.version = manifest.identity.version;
  info.base_version = manifest.base_version;
  info.content_digest = manifest.identity.content_digest;
  info.rows_held = 0;
  const auto format = FormatOf(manifest.identity);
  for (size_t i = 0; format.ok() && i < manifest.layers.size(); ++i) {
    const table::LayerPartitions cut =
        table::CutLayer(manifest.identity.layers[i].total_rows, format->row_bytes());
    for (const uint32_t partition : manifest.layers[i].held) {
      info.rows_held += cut.RowCount(partition);
    }
  }
}

bool Wanted(const VersionInfo& info) { return info.published || info.prepared || info.pinned; }

}  // namespace

Result<std::unique_ptr<VersionManager>> VersionManager::Open(RowStore& store, Load load) {
  std::unique_ptr<VersionManager> manager(new VersionManager(store, std::move(load)));
  RETURN_IF_ERROR(manager->EndDrops());
  RETURN_IF_ERROR(manager->ReadCatalog());
  RETURN_IF_ERROR(manager->Refresh());
  manager->LoadWanted();
  return manager;
}

// Pages of a table set whose manifest is gone already.
Status VersionManager::EndDrops() {
  ASSIGN_OR_RETURN(const auto dropping, store_.ReadRecords(kDropping));
  for (const auto& [key, text] : dropping) {
    const size_t slash = text.find('\n');
    if (slash == std::string::npos) return DataLoss(fmt::format("record {} is damaged", key));
    RETURN_IF_ERROR(DropTableSet(store_, text.substr(0, slash), text.substr(slash + 1)));
    const RecordChange ended = {key, std::nullopt};
    RETURN_IF_ERROR(store_.WriteRecords({&ended, 1}));
  }
  return OkStatus();
}

Status VersionManager::ReadCatalog() {
  ASSIGN_OR_RETURN(const auto records, store_.ReadRecords(kCatalog));
  for (const auto& [key, text] : records) {
    ASSIGN_OR_RETURN(VersionInfo info, ParseCatalogRecord(text));
    entries_[{info.model, info.version}].info = info;
  }
  return OkStatus();
}

Status VersionManager::Refresh() {
  ASSIGN_OR_RETURN(const std::vector<Manifest> manifests, AllManifests(store_));
  const std::lock_guard lock(mutex_);
  for (const Manifest& manifest : manifests) {
    DescribeManifest(manifest, entries_[{manifest.identity.model, manifest.identity.version}].info);
  }
  return OkStatus();
}

void VersionManager::LoadWanted() {
  std::vector<Key> wanted;
  for (const auto& [key, entry] : entries_) {
    if (Wanted(entry.info)) wanted.push_back(key);
  }
  for (const Key& key : wanted) {
    const Result<TablesPtr> loaded = Loaded(key.first, key.second);
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_.at(key);
    if (loaded.ok()) {
      entry.kept = *loaded;
    } else {
      entry.info.problem = loaded.status().message();
      obs::LogError(fmt::format("a version cannot be served model={} version={} why={}", key.first,
                                key.second, entry.info.problem));
    }
  }
}

Result<Manifest> VersionManager::Complete(const std::string& model, const std::string& version) {
  ASSIGN_OR_RETURN(auto manifest, FindManifest(store_, model, version));
  if (manifest) return std::move(*manifest);
  return FailedPrecondition(
      fmt::format("version {} of {} is not complete here: import it first; there is {}", version,
                  model, Inventory()));
}

// In memory already, or loaded now. change_mutex_ is held, or nobody else is there.
Result<TablesPtr> VersionManager::Loaded(const std::string& model, const std::string& version) {
  ASSIGN_OR_RETURN(const Manifest manifest, Complete(model, version));
  {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[{model, version}];
    DescribeManifest(manifest, entry.info);
    if (TablesPtr tables = entry.seen.lock()) return tables;
  }
  ASSIGN_OR_RETURN(TablesPtr tables, load_(manifest));
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[{model, version}];
  entry.seen = tables;
  entry.info.problem.clear();
  return tables;
}

// Memory of a version that nothing keeps any more is given back when its last reader leaves.
void VersionManager::Let(Entry& entry) {
  if (!Wanted(entry.info)) entry.kept.reset();
}

std::string VersionManager::Inventory() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> all;
  for (const auto& [key, entry] : entries_) {
    all.push_back(fmt::format("{} version {}{}", key.first, key.second,
                              entry.info.published ? " (published)" : ""));
  }
  return all.empty() ? "nothing" : fmt::format("{}", fmt::join(all, ", "));
}

Result<const VersionManager::Entry*> VersionManager::FindServed(const std::string& model,
                                                                const std::string& version) const {
  const Entry* found = nullptr;
  for (const auto& [key, entry] : entries_) {
    if (!model.empty() && key.first != model) continue;
    if (version.empty() ? !entry.info.published : key.second != version) continue;
    if (found != nullptr) {
      return FailedPrecondition("several models are served here: name the one you want");
    }
    found = &entry;
  }
  if (found != nullptr) return found;
  return NotFound("");
}

Result<VersionManager::Found> VersionManager::Find(const std::string& model,
                                                   const std::string& version) const {
  std::string problem;
  {
    const std::lock_guard lock(mutex_);
    const Result<const Entry*> entry = FindServed(model, version);
    if (!entry.ok() && entry.status().code() != Code::kNotFound) return entry.status();
    if (entry.ok()) {
      if (TablesPtr tables = (*entry)->seen.lock()) {
        return Found{std::move(tables), (*entry)->info.published ? (*entry)->info.generation : 0};
      }
      problem = (*entry)->info.problem;
    }
  }
  const std::string what = fmt::format("{} version {}", model.empty() ? "any model" : model,
                                       version.empty() ? "(the published one)" : version);
  if (!problem.empty()) {
    return FailedPrecondition(fmt::format("{} cannot be served here: {}", what, problem));
  }
  return FailedPrecondition(
      fmt::format("model: {} is not served here; there is {}", what, Inventory()));
}

Result<TablesPtr> VersionManager::Adopt(const Manifest& manifest, bool imported) {
  const std::string& model = manifest.identity.model;
  const std::string& version = manifest.identity.version;
  const std::lock_guard change(change_mutex_);
  ASSIGN_OR_RETURN(TablesPtr tables, Loaded(model, version));
  uint64_t generation = 0;
  bool has_published = false;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, entry] : entries_) {
      if (key.first != model) continue;
      generation = std::max({generation, entry.info.generation, entry.info.prepared_generation});
      has_published |= entry.info.published;
    }
    Entry& entry = entries_.at({model, version});
    // What the config names is served, whatever is published.
    entry.kept = tables;
    if (has_published && !imported) return tables;
    entry.info.prepared = true;
    entry.info.prepared_generation = generation + 1;
  }
  RETURN_IF_ERROR(CommitPrepared(model, version, generation + 1));
  return tables;
}

std::vector<VersionInfo> VersionManager::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<VersionInfo> all;
  for (const auto& [key, entry] : entries_) {
    all.push_back(entry.info);
    const auto uses = static_cast<uint64_t>(entry.seen.use_count());
    all.back().loaded = uses > 0;
    all.back().readers = uses - (entry.kept != nullptr && uses > 0 ? 1 : 0);
  }
  return all;
}

Status VersionManager::Prepare(const std::string& model, const std::string& version,
                               uint64_t generation) {
  const std::lock_guard change(change_mutex_);
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, entry] : entries_) {
      if (key.first != model || entry.info.generation < generation) continue;
      if (key.second == version && entry.info.published) return OkStatus();  // committed already
      return FailedPrecondition(
          fmt::format("generation {} of {} was version {} here: publish with a higher one",
                      entry.info.generation, model, key.second));
    }
  }
  ASSIGN_OR_RETURN(TablesPtr tables, Loaded(model, version));
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_.at({model, version});
  VersionInfo info = entry.info;
  info.prepared = true;
  info.prepared_generation = std::max(info.prepared_generation, generation);
  const RecordChange record = CatalogRecord(info);
  RETURN_IF_ERROR(store_.WriteRecords({&record, 1}));
  entry.info = info;
  entry.kept = std::move(tables);
  return OkStatus();
}

Status VersionManager::Commit(const std::string& model, const std::string& version,
                              uint64_t generation) {
  const std::lock_guard change(change_mutex_);
  return CommitPrepared(model, version, generation);
}

// The old version steps back and the new one takes its place in one write.
Status VersionManager::CommitPrepared(const std::string& model, const std::string& version,
                                      uint64_t generation) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find({model, version});
  if (found == entries_.end() || !(found->second.info.prepared || found->second.info.published)) {
    return FailedPrecondition(
        fmt::format("version {} of {} was not prepared here: publish it again", version, model));
  }
  VersionInfo info = found->second.info;
  if (info.published && info.generation == generation) return OkStatus();
  if (info.prepared_generation != generation) {
    return FailedPrecondition(fmt::format(
        "version {} of {} was prepared here for generation {}, not {}: publish it again", version,
        model, info.prepared_generation, generation));
  }
  info.published = true;
  info.prepared = false;
  info.generation = generation;
  std::vector<RecordChange> records = {CatalogRecord(info)};
  std::vector<Entry*> before;
  for (auto& [key, entry] : entries_) {
    if (key.first != model || key.second == version || !entry.info.published) continue;
    before.push_back(&entry);
    VersionInfo retired = entry.info;
    retired.published = false;
    records.push_back(CatalogRecord(retired));
  }
  RETURN_IF_ERROR(store_.WriteRecords(records));
  found->second.info = info;
  for (Entry* entry : before) {
    entry->info.published = false;
    Let(*entry);
  }
  obs::LogInfo(
      fmt::format("published model={} version={} generation={}", model, version, generation));
  return OkStatus();
}

Result<VersionManager::Entry*> VersionManager::FindEntry(const std::string& model,
                                                         const std::string& version) {
  const auto found = entries_.find({model, version});
  if (found != entries_.end()) return &found->second;
  return NotFound(fmt::format("there is no version {} of {} here", version, model));
}

Status VersionManager::Abort(const std::string& model, const std::string& version,
                             uint64_t generation) {
  const std::lock_guard change(change_mutex_);
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find({model, version});
  if (found == entries_.end()) return OkStatus();
  Entry& entry = found->second;
  if (!entry.info.prepared || entry.info.prepared_generation != generation) return OkStatus();
  VersionInfo info = entry.info;
  info.prepared = false;
  const RecordChange record = CatalogRecord(info);
  RETURN_IF_ERROR(store_.WriteRecords({&record, 1}));
  entry.info = info;
  Let(entry);
  return OkStatus();
}

Status VersionManager::Pin(const std::string& model, const std::string& version) {
  const std::lock_guard change(change_mutex_);
  ASSIGN_OR_RETURN(TablesPtr tables, Loaded(model, version));
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_.at({model, version});
  VersionInfo info = entry.info;
  info.pinned = true;
  const RecordChange record = CatalogRecord(info);
  RETURN_IF_ERROR(store_.WriteRecords({&record, 1}));
  entry.info = info;
  entry.kept = std::move(tables);
  return OkStatus();
}

Status VersionManager::Unpin(const std::string& model, const std::string& version) {
  const std::lock_guard change(change_mutex_);
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(Entry * entry, FindEntry(model, version));
  VersionInfo info = entry->info;
  info.pinned = false;
  const RecordChange record = CatalogRecord(info);
  RETURN_IF_ERROR(store_.WriteRecords({&record, 1}));
  entry->info = info;
  Let(*entry);
  return OkStatus();
}

Status VersionManager::Drop(const std::string& model, const std::string& version) {
  const std::lock_guard change(change_mutex_);
  RETURN_IF_ERROR(Refresh());
  const std::string name = fmt::format("version {} of {}", version, model);
  const auto keeps = [&](std::string_view why) {
    return FailedPrecondition(fmt::format("{} is not dropped: {}", name, why));
  };
  {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(Entry * entry, FindEntry(model, version));
    if (entry->info.published) return keeps("it is published; publish another version first");
    if (entry->info.prepared) return keeps("it is being published; publish it again, or abort");
    if (entry->info.pinned) return keeps("it is pinned; unpin it first");
    for (const auto& [key, other] : entries_) {
      if (key.first == model && other.info.base_version == version) {
        return keeps(fmt::format("version {} is a delta on it; drop that first", key.second));
      }
    }
    entry->kept.reset();
    if (!entry->seen.expired()) return keeps("sessions read it; try again when they have ended");
    entries_.erase({model, version});
  }
  const std::vector<RecordChange> begun = {
      {fmt::format("{}{:016x}", kDropping, TableSetIdOf(model, version)), model + "\n" + version},
      {CatalogKey(model, version), std::nullopt}};
  RETURN_IF_ERROR(store_.WriteRecords(begun));
  RETURN_IF_ERROR(DropTableSet(store_, model, version));
  const RecordChange ended = {begun[0].key, std::nullopt};
  return store_.WriteRecords({&ended, 1});
}

}  // namespace engram::memnode
