#include "memnode/node/version_manager.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "common/obs/log.h"
#include "memnode/store/import_progress.h"

namespace engram::memnode {

Result<std::unique_ptr<VersionManager>> VersionManager::Open(RowStore& store, TableLoader& loader,
                                                             Repairer& repairer,
                                                             Nanos prepared_for) {
  return OpenStore(store, loader, repairer, prepared_for, /*load=*/true);
}

Result<std::unique_ptr<VersionManager>> VersionManager::OpenUnloaded(RowStore& store,
                                                                     TableLoader& loader,
                                                                     Repairer& repairer,
                                                                     Nanos prepared_for) {
  return OpenStore(store, loader, repairer, prepared_for, /*load=*/false);
}

Result<std::unique_ptr<VersionManager>> VersionManager::OpenStore(RowStore& store,
                                                                  TableLoader& loader,
                                                                  Repairer& repairer,
                                                                  Nanos prepared_for, bool load) {
  std::unique_ptr<VersionManager> manager(
      new VersionManager(store, loader, repairer, prepared_for));
  RETURN_IF_ERROR(EndAllDrops(store));
  RETURN_IF_ERROR(manager->ReadStore());
  if (load) manager->LoadWanted();
  RETURN_IF_ERROR(manager->StartLapsing());
  return manager;
}

VersionManager::~VersionManager() {
  {
    const std::lock_guard change(change_mutex_);
    stop_ = true;
  }
  prepared_changed_.notify_all();
  if (lapsing_.joinable()) lapsing_.join();
}

Status VersionManager::ReadStore() {
  ASSIGN_OR_RETURN(const std::vector<VersionInfo> versions, ReadVersions(store_));
  const std::scoped_lock change(change_mutex_, mutex_);
  for (const VersionInfo& info : versions) {
    entries_.try_emplace({info.model, info.version}, Entry{info, nullptr, {}});
  }
  return OkStatus();
}

void VersionManager::Imported(const Manifest& manifest) {
  const std::scoped_lock change(change_mutex_, mutex_);
  DescribeManifest(manifest, entries_[{manifest.identity.model, manifest.identity.version}].info);
}

// No other thread is there yet. What is published comes first, should memory be short.
void VersionManager::LoadWanted() {
  std::vector<Key> wanted;
  for (const bool published : {true, false}) {
    for (const auto& [key, entry] : entries_) {
      if (entry.info.Wanted() && entry.info.published == published) wanted.push_back(key);
    }
  }
  for (const auto& [model, version] : wanted) {
    const Result<TablesPtr> loaded = Loaded(model, version, nullptr);
    Entry& entry = entries_.at({model, version});
    if (loaded.ok()) {
      entry.kept = *loaded;
      continue;
    }
    entry.info.problem = loaded.status().message();
    obs::LogError(fmt::format("a version cannot be served model={} version={} why={}", model,
                              version, entry.info.problem));
  }
}

Result<Manifest> VersionManager::Complete(const std::string& model, const std::string& version) {
  ASSIGN_OR_RETURN(auto manifest, FindManifest(store_, model, version));
  if (manifest) return std::move(*manifest);
  return FailedPrecondition(
      fmt::format("version {} of {} is not complete here: import it first; there is {}", version,
                  model, Inventory()));
}

// In memory already, or loaded now. load_mutex_ is held, or no other thread runs yet.
Result<TablesPtr> VersionManager::Loaded(const std::string& model, const std::string& version,
                                         const std::atomic<bool>* cancel) {
  ASSIGN_OR_RETURN(const Manifest manifest, Complete(model, version));
  {
    const std::scoped_lock change(change_mutex_, mutex_);
    Entry& entry = entries_[{model, version}];
    DescribeManifest(manifest, entry.info);
    if (TablesPtr tables = entry.seen.lock()) return tables;
  }
  ASSIGN_OR_RETURN(TablesPtr tables, loader_.Load(manifest, cancel));
  const std::scoped_lock change(change_mutex_, mutex_);
  Entry& entry = entries_[{model, version}];
  entry.seen = tables;
  entry.info.problem.clear();
  return tables;
}

// The memory of a version that nothing keeps any more goes with its last reader. To be released
// when mutex_ is not held: that may take long.
TablesPtr VersionManager::Let(Entry& entry) {
  return entry.info.Wanted() ? nullptr : std::exchange(entry.kept, nullptr);
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
  const std::lock_guard load(load_mutex_);
  ASSIGN_OR_RETURN(TablesPtr tables, Loaded(model, version, nullptr));
  const std::lock_guard change(change_mutex_);
  const bool has_published = std::ranges::any_of(entries_, [&](const auto& other) {
    return other.first.first == model && other.second.info.published;
  });
  Entry& entry = entries_.at({model, version});
  const uint64_t generation = HighestGeneration(model) + 1;
  const bool publishes = !has_published || imported;
  if (publishes) RETURN_IF_ERROR(CheckNewest(model, version, generation));
  {
    const std::lock_guard lock(mutex_);
    // What the config names is served, whatever is published.
    entry.kept = tables;
    if (publishes) entry.info.prepared_generation = generation;
    entry.prepared_until = Clock::Real().Now() + prepared_for_;
  }
  if (!publishes) return tables;
  RETURN_IF_ERROR(CommitPrepared(model, version, generation, /*rollback=*/false));
  return tables;
}

Result<std::vector<TablesPtr>> VersionManager::GoOver(const std::vector<Moved>& moved) {
  const std::lock_guard load(load_mutex_);
  const std::lock_guard change(change_mutex_);
  std::vector<RecordChange> records;
  std::map<Key, VersionInfo> infos;
  for (const Moved& one : moved) {
    const auto known = entries_.find({one.info.model, one.info.version});
    const bool listed = known != entries_.end() && known->second.info.Wanted();
    VersionInfo info = listed ? known->second.info : one.info;
    if (!listed) records.push_back(CatalogRecord(info));
    infos[{info.model, info.version}] = info;
  }
  // A member that comes back has other versions in its catalog than those published meanwhile.
  for (const auto& [key, entry] : entries_) {
    if (infos.contains(key) || !entry.info.published) continue;
    const bool replaced = std::ranges::any_of(infos, [&](const auto& other) {
      return other.first.first == key.first && other.second.published;
    });
    if (!replaced) continue;
    VersionInfo info = entry.info;
    info.published = false;
    records.push_back(CatalogRecord(info));
    infos[key] = info;
  }
  if (!records.empty()) RETURN_IF_ERROR(store_.WriteRecords(records));
  std::vector<TablesPtr> before;
  const std::lock_guard lock(mutex_);
  for (auto& [key, entry] : entries_) {
    if (TablesPtr tables = entry.seen.lock()) before.push_back(std::move(tables));
    entry.kept.reset();
    entry.seen.reset();
  }
  for (const auto& [key, info] : infos) entries_[key].info = info;
  for (const Moved& one : moved) {
    Entry& entry = entries_[{one.info.model, one.info.version}];
    entry.kept = one.tables;
    entry.seen = one.tables;
    entry.info.problem.clear();
  }
  return before;
}

std::string VersionManager::NotServed() const {
  const std::lock_guard lock(mutex_);
  bool any = false;
  for (const auto& [key, entry] : entries_) {
    const bool served = !entry.seen.expired();
    any = any || (served && entry.info.Wanted()) || (served && entry.kept != nullptr);
    if (!entry.info.published || served) continue;
    return fmt::format("version {} of {}, which is published, cannot be served: {}", key.second,
                       key.first, entry.info.problem.empty() ? "not loaded" : entry.info.problem);
  }
  return any ? "" : "no version is published here: import one and publish it";
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

// change_mutex_ is held. Written first, so that the answer is what a restart would find.
Status VersionManager::Change(Entry& entry, const VersionInfo& info) {
  const RecordChange record = CatalogRecord(info);
  const Status written = store_.WriteRecords({&record, 1});
  TablesPtr unused;
  const std::lock_guard lock(mutex_);
  if (written.ok()) entry.info = info;
  unused = Let(entry);
  return written;
}

Status VersionManager::Pin(const std::string& model, const std::string& version,
                           const std::atomic<bool>* cancel) {
  const std::lock_guard load(load_mutex_);
  ASSIGN_OR_RETURN(TablesPtr tables, Loaded(model, version, cancel));
  const std::lock_guard change(change_mutex_);
  Entry& entry = entries_.at({model, version});
  {
    const std::lock_guard lock(mutex_);
    entry.kept.swap(tables);
  }
  VersionInfo info = entry.info;
  info.pinned = true;
  return Change(entry, info);
}

Status VersionManager::Unpin(const std::string& model, const std::string& version) {
  const std::lock_guard change(change_mutex_);
  const auto found = entries_.find({model, version});
  if (found == entries_.end()) {
    return NotFound(fmt::format("there is no version {} of {} here", version, model));
  }
  VersionInfo info = found->second.info;
  if (!info.pinned) return OkStatus();
  info.pinned = false;
  return Change(found->second, info);
}

Status VersionManager::Drop(const std::string& model, const std::string& version) {
  const std::lock_guard load(load_mutex_);
  RETURN_IF_ERROR(ReadStore());
  const auto no_repairs = repairer_.Pause();  // which look at tables in memory as well
  RETURN_IF_ERROR(Release(model, version));
  ASSIGN_OR_RETURN(const bool dropped, EndDrop(store_, model, version));
  if (dropped) return OkStatus();
  return NotFound(fmt::format("there is no version {} of {} here", version, model));
}

// change_mutex_ or mutex_ is held.
Status VersionManager::CheckDropLocked(const Entry& entry) const {
  const VersionInfo& info = entry.info;
  const auto keeps = [&](std::string_view why) {
    return FailedPrecondition(
        fmt::format("version {} of {} is not dropped: {}", info.version, info.model, why));
  };
  if (info.published) return keeps("it is published; publish another version first");
  if (info.prepared_generation != 0 || info.promised_generation != 0) {
    return keeps("it is being published; publish it again, or engramctl abort");
  }
  if (info.pinned) return keeps("it is pinned; unpin it first");
  for (const auto& [key, other] : entries_) {
    if (key.first == info.model && other.info.base_version == info.version) {
      return keeps(fmt::format("version {} is a delta on it; drop that first", key.second));
    }
  }
  const auto uses = static_cast<size_t>(entry.seen.use_count());
  if (uses > (entry.kept == nullptr ? 0u : 1u)) {
    return keeps("sessions read it; try again when they have ended");
  }
  return OkStatus();
}

Status VersionManager::CheckDrop(const std::string& model, const std::string& version) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find({model, version});
  return found == entries_.end() ? OkStatus() : CheckDropLocked(found->second);
}

// The first write of a drop, unless the version is needed. OK when it is not listed.
Status VersionManager::Release(const std::string& model, const std::string& version) {
  const std::lock_guard change(change_mutex_);
  const auto found = entries_.find({model, version});
  if (found == entries_.end()) {
    ASSIGN_OR_RETURN(const bool incomplete, IsIncomplete(store_, model, version));
    return incomplete ? BeginDrop(store_, model, version) : OkStatus();
  }
  TablesPtr unused;
  {
    const std::lock_guard lock(mutex_);  // no reader comes after the check
    RETURN_IF_ERROR(CheckDropLocked(found->second));
    unused.swap(found->second.kept);
    found->second.seen.reset();
  }
  unused.reset();
  RETURN_IF_ERROR(BeginDrop(store_, model, version));
  const std::lock_guard lock(mutex_);
  entries_.erase(found);
  return OkStatus();
}

}  // namespace engram::memnode
