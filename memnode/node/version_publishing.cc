// The steps of a publication at one node (version_manager.h).
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "memnode/node/version_manager.h"

namespace engram::memnode {

uint64_t VersionManager::HighestGeneration(const std::string& model) const {
  uint64_t highest = 0;
  for (const auto& [key, entry] : entries_) {
    if (key.first == model) highest = std::max(highest, entry.info.HighestGeneration());
  }
  return highest;
}

// OK when no later publication of another version was committed here and the generation is within
// reach of the highest one known.
Status VersionManager::CheckNewest(const std::string& model, const std::string& version,
                                   uint64_t generation) const {
  const uint64_t highest = HighestGeneration(model);
  if (generation == 0 || generation == std::numeric_limits<uint64_t>::max() ||
      (generation > highest && generation - highest > kGenerationStepMax)) {
    return InvalidArgument(fmt::format(
        "generation {} of {} is none to publish in: the highest here is {}, take the one after it "
        "(1..{} more are accepted)",
        generation, model, highest, kGenerationStepMax));
  }
  const auto order = std::tie(generation, version);
  for (const auto& [key, entry] : entries_) {
    if (key.first != model || std::tie(entry.info.generation, key.second) <= order) continue;
    if (key.second == version && entry.info.published) continue;
    return FailedPrecondition(
        fmt::format("version {} of {} was published here later (generation {}): publish version {} "
                    "again, with a higher one",
                    key.second, model, entry.info.generation, version));
  }
  return OkStatus();
}

Status VersionManager::Prepare(const std::string& model, const std::string& version,
                               uint64_t generation, const std::atomic<bool>* cancel) {
  const std::lock_guard load(load_mutex_);
  {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(CheckNewest(model, version, generation));
  }
  ASSIGN_OR_RETURN(TablesPtr tables, Loaded(model, version, cancel));
  const std::scoped_lock change(change_mutex_, mutex_);
  RETURN_IF_ERROR(CheckNewest(model, version, generation));  // a commit may have come meanwhile
  Entry& entry = entries_.at({model, version});
  entry.kept = std::move(tables);
  if (entry.info.published && entry.info.generation >= generation) return OkStatus();
  entry.info.prepared_generation = std::max(entry.info.prepared_generation, generation);
  entry.prepared_until = Clock::Real().Now() + prepared_for_;
  prepared_changed_.notify_all();
  return OkStatus();
}

// change_mutex_ is held. A version that is ready to be committed in this generation, or was.
Result<VersionManager::Entry*> VersionManager::FindReady(const std::string& model,
                                                         const std::string& version,
                                                         uint64_t generation) {
  const auto found = entries_.find({model, version});
  const std::string name = fmt::format("version {} of {}", version, model);
  if (found == entries_.end()) {
    return FailedPrecondition(name + " was not prepared here: publish it again");
  }
  const VersionInfo& info = found->second.info;
  if (info.published && info.generation >= generation) return &found->second;
  if (info.prepared_generation != generation && info.promised_generation != generation) {
    const uint64_t other = std::max(info.prepared_generation, info.promised_generation);
    return FailedPrecondition(
        other != 0 ? fmt::format("{} was prepared here for generation {}, not {}: publish it again",
                                 name, other, generation)
                   : fmt::format("{} was not prepared here for generation {}, or that has lapsed: "
                                 "publish it again",
                                 name, generation));
  }
  if (found->second.kept == nullptr) {
    return FailedPrecondition(fmt::format("{} cannot be served here: {}", name, info.problem));
  }
  return &found->second;
}

Status VersionManager::Renew(const std::string& model, const std::string& version,
                             uint64_t generation) {
  const std::scoped_lock change(change_mutex_, mutex_);
  ASSIGN_OR_RETURN(Entry* const entry, FindReady(model, version, generation));
  entry->prepared_until = Clock::Real().Now() + prepared_for_;
  return OkStatus();
}

Status VersionManager::Promise(const std::string& model, const std::string& version,
                               uint64_t generation) {
  const std::lock_guard change(change_mutex_);
  ASSIGN_OR_RETURN(Entry* const entry, FindReady(model, version, generation));
  RETURN_IF_ERROR(CheckNewest(model, version, generation));
  VersionInfo info = entry->info;
  if (info.published && info.generation >= generation) return OkStatus();
  info.promised_generation = generation;
  if (info.prepared_generation == generation) info.prepared_generation = 0;
  return Change(*entry, info);
}

Status VersionManager::Commit(const std::string& model, const std::string& version,
                              uint64_t generation, bool rollback) {
  const std::lock_guard change(change_mutex_);
  return CommitPrepared(model, version, generation, rollback);
}

// change_mutex_ is held. The old version steps back and the new one takes its place in one write.
Status VersionManager::CommitPrepared(const std::string& model, const std::string& version,
                                      uint64_t generation, bool rollback) {
  ASSIGN_OR_RETURN(Entry* const entry, FindReady(model, version, generation));
  VersionInfo info = entry->info;
  if (info.published && info.generation >= generation) return OkStatus();
  RETURN_IF_ERROR(CheckNewest(model, version, generation));
  const auto end_earlier = [&](VersionInfo& of) {
    const auto order = std::tie(generation, version);
    if (std::tie(of.prepared_generation, of.version) <= order) of.prepared_generation = 0;
    if (std::tie(of.promised_generation, of.version) <= order) of.promised_generation = 0;
  };
  end_earlier(info);
  info.published = true;
  info.generation = generation;
  info.rolled_back = false;
  std::vector<std::pair<Entry*, VersionInfo>> changes = {{entry, info}};
  for (auto& [key, other] : entries_) {
    if (key.first != model || key.second == version) continue;
    VersionInfo before = other.info;
    if (rollback && before.published) before.rolled_back = true;
    before.published = false;
    end_earlier(before);
    if (before.Wanted() != other.info.Wanted() || before.published != other.info.published ||
        before.promised_generation != other.info.promised_generation ||
        before.prepared_generation != other.info.prepared_generation) {
      changes.emplace_back(&other, before);
    }
  }
  std::vector<RecordChange> records;
  for (const auto& [changing, changed] : changes) records.push_back(CatalogRecord(changed));
  RETURN_IF_ERROR(store_.WriteRecords(records));
  std::vector<TablesPtr> unused;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [changing, changed] : changes) {
      changing->info = changed;
      unused.push_back(Let(*changing));
    }
  }
  obs::LogInfo(
      fmt::format("published model={} version={} generation={}", model, version, generation));
  return OkStatus();
}

Status VersionManager::Abort(const std::string& model, const std::string& version,
                             uint64_t generation) {
  const std::lock_guard change(change_mutex_);
  const auto found = entries_.find({model, version});
  if (found == entries_.end()) return OkStatus();
  Entry& entry = found->second;
  VersionInfo info = entry.info;
  TablesPtr unused;
  {
    const std::lock_guard lock(mutex_);
    if (info.prepared_generation == generation) info.prepared_generation = 0;
    entry.info = info;
    if (info.promised_generation != generation) unused = Let(entry);
  }
  if (info.promised_generation != generation) return OkStatus();
  info.promised_generation = 0;
  return Change(entry, info);
}

Status VersionManager::StartLapsing() {
  ASSIGN_OR_RETURN(lapsing_, StartThread("versions", [this] { EndLapsed(); }));
  return OkStatus();
}

// Until the end. Memory is given back while no lock is held.
void VersionManager::EndLapsed() {
  std::unique_lock change(change_mutex_);
  while (!stop_) {
    const TimePoint now = Clock::Real().Now();
    TimePoint next = TimePoint::max();
    std::vector<TablesPtr> unused;
    for (auto& [key, entry] : entries_) {
      if (entry.info.prepared_generation == 0) continue;
      if (now < entry.prepared_until) {
        next = std::min(next, entry.prepared_until);
        continue;
      }
      obs::LogWarn(fmt::format("a preparation has lapsed model={} version={} generation={}",
                               key.first, key.second, entry.info.prepared_generation));
      const std::lock_guard lock(mutex_);
      entry.info.prepared_generation = 0;
      unused.push_back(Let(entry));
    }
    if (!unused.empty()) {
      change.unlock();
      unused.clear();
      change.lock();
      continue;
    }
    if (next == TimePoint::max()) {
      prepared_changed_.wait(change);
    } else {
      prepared_changed_.wait_until(change, next);
    }
  }
}

}  // namespace engram::memnode
