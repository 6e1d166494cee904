// Which versions of which models this node holds and serves: import -> publish -> pin -> rollback
// -> drop.
//
// Publications of a model are in one order: by generation, then by the version's name (bytes). Each
// node publishes what comes later in that order and refuses what comes earlier, so that two tools
// which publish at once lead every node to the same version, however their requests arrive.
//
// Publishing has three steps over a static cluster. Every node *prepares*: the version is complete,
// its rows are loaded and verified. Nothing is written, and a preparation that is not renewed
// lapses (after `prepared_for`, or with the process), for its tool is gone. Then every node
// *promises*: the intent is on disk, and the version stays ready until it is committed, aborted, or
// overtaken by a later publication. Only then every node *commits*. The first commit decides: a
// node that has only promised serves the version to clients that ask for it by name, and a client
// that asks for "the current one" takes the latest publication any node reports
// (common/client/lookup/connect). A tool that died in between is run again.
//
// What is published, prepared, promised or pinned is in memory; another version stays while
// sessions read it. State is kept as records `catalog/<id>`, changed together or not at all.
//
// Any thread. Prepare, Pin, Adopt and Drop may take long, and wait for each other; the other calls
// take no longer than a write of records, whatever is being loaded; Find, NotServed, List and
// CheckDrop never wait for the disk.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "memnode/store/manifest.h"
#include "memnode/store/row_store.h"
#include "memnode/store/version_catalog.h"
#include "memnode/tables/loaded_tables.h"
#include "memnode/upkeep/repair.h"

namespace engram::memnode {

// Loads versions' rows.
class TableLoader {
 public:
  virtual ~TableLoader() = default;
  // May take long, and ends with CANCELLED soon after *cancel, which may be null, was set.
  virtual Result<TablesPtr> Load(const Manifest& manifest, const std::atomic<bool>* cancel) = 0;
};

class VersionManager {
 public:
  static constexpr Nanos kPreparedFor = std::chrono::seconds(60);
  // A generation may be this much above the highest known here, so that no request can use up the
  // numbers: one publication a microsecond would take 500 million years.
  static constexpr uint64_t kGenerationStepMax = uint64_t{1} << 32;

  // Reads the catalog, ends interrupted drops, and loads what is published, promised or pinned. A
  // version that cannot be loaded does not keep the others back: its problem is listed, and it is
  // an error to ask for it. Repairs pause while a version is dropped, so that none writes its pages
  // meanwhile. All outlive it. RESOURCE_EXHAUSTED: no thread.
  static Result<std::unique_ptr<VersionManager>> Open(RowStore& store, TableLoader& loader,
                                                      Repairer& repairer,
                                                      Nanos prepared_for = kPreparedFor);
  // The same, and loads nothing: of a node that is no member of the cluster.
  static Result<std::unique_ptr<VersionManager>> OpenUnloaded(RowStore& store, TableLoader& loader,
                                                              Repairer& repairer,
                                                              Nanos prepared_for);
  ~VersionManager();

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

  // The same tables by another map of the cluster.
  struct Moved {
    VersionInfo info;  // how it is published or pinned
    TablesPtr tables;
  };
  // Every version is read by these tables from now on; one that is not among them, by none. Those
  // that were not listed here are published and pinned as their info says. Returns the tables that
  // were read before; nothing is changed on an error, which is the store's.
  Result<std::vector<TablesPtr>> GoOver(const std::vector<Moved>& moved);

  // Why clients that ask for a published version are refused here; empty: none are.
  std::string NotServed() const;

  std::vector<VersionInfo> List() const;
  // Lists a version that was imported just now.
  void Imported(const Manifest& manifest);

  // Loads and verifies. FAILED_PRECONDITION: not complete here, or a later publication is known
  // here. INVALID_ARGUMENT: a generation that is 0 or too far above those known here. Idempotent.
  Status Prepare(const std::string& model, const std::string& version, uint64_t generation,
                 const std::atomic<bool>* cancel = nullptr);
  // A preparation lasts `prepared_for` from now. FAILED_PRECONDITION: it has lapsed, or there was
  // none. A promise or a publication needs no renewal.
  Status Renew(const std::string& model, const std::string& version, uint64_t generation);
  // Makes a preparation last. Errors as of Renew and of Prepare. Idempotent.
  Status Promise(const std::string& model, const std::string& version, uint64_t generation);
  // Ends preparations and promises of publications that come before this one. FAILED_PRECONDITION
  // unless prepared or promised for this generation, or published in it already, or when a later
  // one was published. With `rollback` the replaced version is not rolled back to until it is
  // published again.
  Status Commit(const std::string& model, const std::string& version, uint64_t generation,
                bool rollback = false);
  // Forgets a preparation or promise; no error when there is none.
  Status Abort(const std::string& model, const std::string& version, uint64_t generation);

  // A pinned version stays in memory and is not dropped. Pinning loads it.
  Status Pin(const std::string& model, const std::string& version,
             const std::atomic<bool>* cancel = nullptr);
  Status Unpin(const std::string& model, const std::string& version);
  // FAILED_PRECONDITION says what keeps it: published, prepared, pinned, the base of another
  // version, or sessions that read it. Run again it ends a drop that was interrupted.
  Status Drop(const std::string& model, const std::string& version);
  // What Drop would say now, and nothing is changed. OK when it is not listed.
  Status CheckDrop(const std::string& model, const std::string& version) const;

 private:
  struct Entry {
    VersionInfo info;
    TablesPtr kept;                          // published, prepared, promised or pinned
    std::weak_ptr<const ServedTables> seen;  // while any session or job reads it
    TimePoint prepared_until{};
  };
  using Key = std::pair<std::string, std::string>;  // model, version

  VersionManager(RowStore& store, TableLoader& loader, Repairer& repairer, Nanos prepared_for)
      : store_(store), loader_(loader), repairer_(repairer), prepared_for_(prepared_for) {}
  static Result<std::unique_ptr<VersionManager>> OpenStore(RowStore& store, TableLoader& loader,
                                                           Repairer& repairer, Nanos prepared_for,
                                                           bool load);
  Status StartLapsing();
  void EndLapsed();
  Status ReadStore();
  void LoadWanted();
  Result<Manifest> Complete(const std::string& model, const std::string& version);
  Result<TablesPtr> Loaded(const std::string& model, const std::string& version,
                           const std::atomic<bool>* cancel);
  Status CommitPrepared(const std::string& model, const std::string& version, uint64_t generation,
                        bool rollback);
  Status CheckNewest(const std::string& model, const std::string& version,
                     uint64_t generation) const;
  uint64_t HighestGeneration(const std::string& model) const;
  Result<Entry*> FindReady(const std::string& model, const std::string& version,
                           uint64_t generation);
  Status CheckDropLocked(const Entry& entry) const;
  Status Release(const std::string& model, const std::string& version);
  Status Change(Entry& entry, const VersionInfo& info);
  [[nodiscard]] static TablesPtr Let(Entry& entry);
  Result<const Entry*> FindServed(const std::string& model, const std::string& version) const;
  std::string Inventory() const;

  RowStore& store_;
  TableLoader& loader_;
  Repairer& repairer_;
  const Nanos prepared_for_;
  // Taken in this order. One load or drop at a time; one change of entries_ and the catalog's
  // records at a time, held while these are written; entries_ are read under either of the last
  // two, and changed under both.
  std::mutex load_mutex_;
  std::mutex change_mutex_;
  mutable std::mutex mutex_;
  std::map<Key, Entry> entries_;
  std::condition_variable prepared_changed_;  // of change_mutex_
  bool stop_ = false;                         // guarded by change_mutex_
  std::thread lapsing_;                       // ends preparations that no tool renews
};

}  // namespace engram::memnode
