// The background check of everything a store holds: reads each complete table set at a limited
// rate, over and over, and repairs what is damaged; at once where a reader reported damage. Records
// `scrub/<id>` (scrub_state.h) keep its place and counters, so that it goes on after a restart.
//
// Threads: any; the work is done on a thread of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "common/base/clock.h"
#include "common/obs/metrics.h"
#include "memnode/store/import_progress.h"
#include "memnode/store/row_store.h"
#include "memnode/store/scrub_state.h"
#include "memnode/store/table_reader.h"
#include "memnode/upkeep/read_rate.h"
#include "memnode/upkeep/repair.h"
#include "memnode/upkeep/verify.h"

namespace engram::memnode {

struct ScrubberOptions {
  double mib_per_s = 8;                             // of rows; 0: only what is reported
  Nanos idle_pause = std::chrono::minutes(10);      // between two passes over everything
  Nanos retry_pause = std::chrono::seconds(60);     // before a failed repair is tried again
  Nanos refresh_period = std::chrono::seconds(10);  // looks for new and dropped table sets
  Nanos save_period = std::chrono::seconds(1);
  size_t reports_max = 4096;  // waiting; what is reported beyond is dropped
  size_t listed_max = 1000;   // bad partitions remembered, and bad pages listed
  const Clock* clock = &Clock::Real();
};

class Scrubber {
 public:
  // All outlive it.
  Scrubber(RowStore& store, Repairer& repairer, obs::Metrics& metrics,
           const ScrubberOptions& options = {});
  ~Scrubber();     // stops within the reading of a partition
  Status Start();  // RESOURCE_EXHAUSTED: no thread

  // Asks for a page to be looked at and repaired now. Never waits for the disk. False when too much
  // is waiting; duplicates count as one.
  bool ReportDamage(TableSetId table_set, uint32_t layer_index, uint64_t page);
  // The store's table sets have changed, or the clock was moved. Never waits for the disk.
  void Refresh();

  // What is damaged now and could not be repaired, at most listed_max.
  std::vector<Damage> Bad() const;
  // By table set, as of the last partition read.
  std::map<TableSetId, ScrubState> States() const;
  // Imports that have not ended, as of the last look at the store (refresh_period).
  std::vector<IncompleteImport> Incomplete() const;

 private:
  struct Place {
    uint32_t layer_index = 0;
    uint32_t partition = 0;
  };
  struct Table {
    std::string manifest_text;
    std::unique_ptr<TableReader> reader;
    std::vector<Place> places;  // held partitions
    ScrubState state;
    ScrubState saved;
    TimePoint saved_at;

    TableSetId id() const;
  };
  using Report = std::tuple<TableSetId, uint32_t, uint64_t>;     // layer, page
  using Partition = std::tuple<TableSetId, uint32_t, uint32_t>;  // layer, partition
  struct BadPartition {
    std::vector<Damage> damage;
    TimePoint retry_at;
  };
  struct Metrics {
    explicit Metrics(obs::Metrics& registry);
    obs::Counter& bytes;
    obs::Counter& pages;
    obs::Counter& passes;
    obs::Gauge& pass_seconds;
    obs::Counter& found;
    obs::Counter& repaired;
    obs::Counter& failures;
    obs::Counter& reports_dropped;
    obs::Gauge& bad;
  };

  void Run();
  void RefreshTables();
  Status UpdateTables();
  Status OpenTable(const std::string& manifest_text, const std::string& scrub_text);
  void RemoveStale(const std::map<std::string, std::string>& manifests,
                   const std::map<std::string, std::string>& states);
  Table* NextTable();
  void ScrubNext(Table& table);
  void Throttle(uint64_t bytes);
  void LookAtReports();
  bool LookAt(const Report& report);
  void Check(Table& table, Place place, bool throttled);
  void Mend(Table& table, Place place, std::vector<Damage> damage);
  bool MayRepair(const Partition& partition, bool* known) const;
  void Failed(const Partition& partition, std::vector<Damage> damage);
  void Forget(const Partition& partition);
  void TellBad();
  void Publish(const Table& table);
  void Save(Table& table);
  bool WaitUntil(TimePoint time, bool or_refresh);
  bool stopping() const;

  RowStore& store_;
  Repairer& repairer_;
  const ScrubberOptions options_;
  const Clock& clock_;
  Metrics metrics_;
  ReadRate rate_;

  // The thread's own.
  std::map<TableSetId, Table> tables_;
  std::vector<Report> unknown_;  // reports on table sets not seen yet
  std::set<std::string> told_;   // errors that are logged once
  TimePoint refresh_at_;
  TimePoint idle_until_;
  uint64_t round_ = 1;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  bool stop_ = false;
  bool refresh_ = true;
  std::deque<Report> reports_;
  std::set<Report> waiting_;  // the same, for finding duplicates
  std::map<Partition, BadPartition> bad_;
  std::map<TableSetId, ScrubState> states_;
  std::vector<IncompleteImport> incomplete_;

  std::thread thread_;
};

}  // namespace engram::memnode
