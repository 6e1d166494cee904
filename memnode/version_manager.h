// Which versions of which models this node holds and serves: import -> publish -> pin -> rollback
// -> drop.
//
// Publishing is two-phase over a static cluster: every node prepares (the version is complete, its
// rows are loaded and verified, the intent is on disk), then every node commits to one generation
// number. The first commit decides: whoever has only prepared serves the version to clients that
// ask for it by name, and a client that asks for "the current one" takes the highest generation any
// node tells (common/client/lookup_connect). A tool that died in between is run again.
//
// What is published, prepared or pinned is in memory; another version stays while sessions read it.
// State is kept as records `catalog/<id>`, changed together or not at all.
//
// Any thread. Prepare, Pin, Adopt and Drop may take long, and wait for each other; the
// other calls take no longer than a write of records, whatever is being loaded.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/manifest.h"
#include "memnode/row_store.h"
#include "memnode/version_catalog.h"

namespace engram::memnode {

class ServedTables;
using TablesPtr = std::shared_ptr<const ServedTables>;

class VersionManager {
 public:
  // Loads a version's rows; may take long, and ends with CANCELLED soon after *cancel, which may be
  // null, was set.
  using Load =
      std::function<Result<TablesPtr>(const Manifest& manifest, const std::atomic<bool>* cancel)>;

  // Reads the catalog, ends interrupted drops, and loads what is published, prepared or pinned. A
  // version that cannot be loaded does not keep the others back: its problem is listed, and it is
  // an error to ask for it. `store` outlives it.
  static Result<std::unique_ptr<VersionManager>> Open(RowStore& store, Load load);

  // Held while a dropped version's pages are removed, so that no repair writes them meanwhile. Set
  // before anything is dropped.
  void PauseRepairsBy(std::function<std::unique_lock<std::mutex>()> pause) {
    pause_repairs_ = std::move(pause);
  }

  struct Found {
    TablesPtr tables;
    uint64_t generation = 0;  // of the publication; 0: served, but not published
  };
  // An empty version: the published one; an empty model: the only one. FAILED_PRECONDITION says
  // what there is.
  Result<Found> Find(const std::string& model, const std::string& version) const;

  // Makes sure that a complete version is served, and publishes it when its model has no published
  // version, or when it was imported just now.
  Result<TablesPtr> Adopt(const Manifest& manifest, bool imported);

  std::vector<VersionInfo> List() const;
  // Lists a version that was imported just now.
  void Imported(const Manifest& manifest);

  // Loads and verifies. FAILED_PRECONDITION: not complete here, or prepared for another generation
  // that is higher. Idempotent.
  Status Prepare(const std::string& model, const std::string& version, uint64_t generation,
                 const std::atomic<bool>* cancel = nullptr);
  // Forgets earlier preparations of other versions. FAILED_PRECONDITION unless prepared for this
  // generation, or published in it already, or when a later one was published. With `rollback` the
  // version that was published is not one to roll back to until it is published again.
  Status Commit(const std::string& model, const std::string& version, uint64_t generation,
                bool rollback = false);
  // Forgets a preparation; no error when there is none.
  Status Abort(const std::string& model, const std::string& version, uint64_t generation);

  // A pinned version stays in memory and is not dropped. Pinning loads it.
  Status Pin(const std::string& model, const std::string& version,
             const std::atomic<bool>* cancel = nullptr);
  Status Unpin(const std::string& model, const std::string& version);
  // FAILED_PRECONDITION says what keeps it: published, prepared, pinned, the base of another
  // version, or sessions that read it. Run again it ends a drop that was interrupted.
  Status Drop(const std::string& model, const std::string& version);

 private:
  struct Entry {
    VersionInfo info;
    TablesPtr kept;                          // published, prepared or pinned
    std::weak_ptr<const ServedTables> seen;  // while anybody reads it
  };
  using Key = std::pair<std::string, std::string>;  // model, version

  VersionManager(RowStore& store, Load load) : store_(store), load_(std::move(load)) {}
  Status ReadStore();
  void LoadWanted();
  Result<Manifest> Complete(const std::string& model, const std::string& version);
  Result<TablesPtr> Loaded(const std::string& model, const std::string& version,
                           const std::atomic<bool>* cancel);
  Status CommitPrepared(const std::string& model, const std::string& version, uint64_t generation,
                        bool rollback);
  Status CheckNewest(const std::string& model, const std::string& version,
                     uint64_t generation) const;
  Status Release(const std::string& model, const std::string& version);
  Status Change(Entry& entry, const VersionInfo& info);
  void Let(Entry& entry);
  Result<const Entry*> FindServed(const std::string& model, const std::string& version) const;
  std::string Inventory() const;

  RowStore& store_;
  const Load load_;
  std::function<std::unique_lock<std::mutex>()> pause_repairs_;
  std::mutex load_mutex_;     // one load or drop at a time; taken before mutex_
  mutable std::mutex mutex_;  // guards entries_ and the catalog's records
  std::map<Key, Entry> entries_;
};

}  // namespace engram::memnode
