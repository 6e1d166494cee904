// Checks the rows in memory over and over at a limited rate, and at once a row that a client
// reports damaged. A partition with damaged rows is read from the store, and those rows are
// overwritten in place: a reader sees old bytes or new ones, and compares their check in any case.
//
// Threads: any; the work is done on a thread of its own, never on a data thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "common/base/clock.h"
#include "common/obs/metrics.h"
#include "memnode/tables/loaded_tables.h"
#include "memnode/upkeep/read_rate.h"
#include "memnode/upkeep/repair.h"

namespace engram::memnode {

struct MemoryScrubberOptions {
  double mib_per_s = 16;                         // of rows; 0: only what is reported
  Nanos pass_pause = std::chrono::minutes(1);    // between two passes over everything
  Nanos retry_pause = std::chrono::seconds(60);  // before a failed reload is tried again
  size_t reports_max = 1024;                     // waiting; what is reported beyond is dropped
  size_t failed_max = 1000;                      // partitions remembered
};

class MemoryScrubber {
 public:
  // All outlive it. Repairs pause while it holds tables to look at them, so that a drop, which
  // pauses them too, does not take it for a reader; but not while rows are loaded again. A null
  // repairer: nothing is dropped.
  MemoryScrubber(const LoadedTables& loaded, Repairer* repairer, obs::Metrics& metrics,
                 const MemoryScrubberOptions& options = {});
  ~MemoryScrubber();  // stops within the reading of a partition
  Status Start();     // RESOURCE_EXHAUSTED: no thread

  // A client found this row damaged. Never waits. The node checks the row itself before it acts.
  void Report(const std::weak_ptr<const ServedTables>& tables, uint32_t layer_index, uint64_t row);

  // Partitions of loaded tables whose damaged rows could not be written again, as of the last try.
  size_t unmended() const { return unmended_.load(std::memory_order_relaxed); }

 private:
  struct RowReport {
    std::weak_ptr<const ServedTables> tables;
    uint32_t layer_index = 0;
    uint64_t row = 0;
  };
  struct Metrics {
    explicit Metrics(obs::Metrics& registry);
    obs::Counter& bytes;
    obs::Counter& passes;
    obs::Counter& reports;
    obs::Counter& reports_dropped;
    obs::Counter& damaged;
    obs::Counter& mended;
    obs::Counter& failures;
  };
  // Of one version: model, version, layer, partition.
  using Place = std::tuple<std::string, std::string, uint32_t, uint32_t>;

  using WeakTables = std::weak_ptr<const ServedTables>;

  std::unique_lock<std::mutex> Pause() const;
  void Run();
  void Pass();
  void ForgetDropped();
  std::vector<WeakTables> AllTables() const;
  std::vector<PartitionPlace> PlacesOf(const WeakTables& tables) const;
  uint64_t Check(const WeakTables& tables, const PartitionPlace& place);
  void LookAtReports();
  void LookAt(const RowReport& report);
  void Mend(const ServedTables& tables, uint32_t layer_index, uint32_t partition,
            const std::vector<uint64_t>& rows, const char* found_by);
  bool WaitUntil(TimePoint time);
  bool stopping() const;

  const LoadedTables& loaded_;
  Repairer* const repairer_;
  const MemoryScrubberOptions options_;
  const Clock& clock_ = Clock::Real();
  Metrics metrics_;
  ReadRate rate_;
  std::map<Place, TimePoint> failed_;  // the thread's own: when to try again
  std::atomic<size_t> unmended_ = 0;   // the size of failed_

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  bool stop_ = false;
  std::deque<RowReport> reports_;

  std::thread thread_;
};

}  // namespace engram::memnode
