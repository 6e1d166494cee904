// Looks after the rows in memory: reads them through at a limited rate, over and over, and looks at
// once where a client says that a row came damaged. A damaged partition is loaded again from the
// store and written over the damaged rows, in place: a reader of one sees old bytes or new ones,
// whose check it compares in any case, and no sound row is touched.
//
// Threads: any; the work is done on a thread of its own, never on a data thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "common/base/clock.h"
#include "common/obs/metrics.h"
#include "memnode/tables/served_tables.h"
#include "memnode/upkeep/read_rate.h"

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
  using Tables = std::shared_ptr<const ServedTables>;
  // The tables in memory now; any thread.
  using Loaded = std::function<std::vector<Tables>()>;
  // Locked while it holds tables to look at them, so that a drop, which locks it too, does not take
  // it for a reader. May be null. Not locked while rows are loaded again.
  using Pause = std::function<std::unique_lock<std::mutex>()>;

  // `metrics` outlives it. Starts at once.
  MemoryScrubber(Loaded loaded, Pause pause, obs::Metrics& metrics,
                 const MemoryScrubberOptions& options = {});
  ~MemoryScrubber();  // stops within the reading of a partition
  // Why its thread could not be started; then nothing is scrubbed.
  const Status& started() const { return started_; }

  // A client found this row damaged. Never waits. The row is looked at here: a client's word alone
  // changes nothing.
  void Report(const std::weak_ptr<const ServedTables>& tables, uint32_t layer_index, uint64_t row);

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

  void Run();
  void Pass();
  std::vector<WeakTables> AllTables() const;
  std::vector<PartitionPlace> PlacesOf(const WeakTables& tables) const;
  uint64_t Check(const WeakTables& tables, const PartitionPlace& place);
  void LookAtReports();
  void LookAt(const RowReport& report);
  void Mend(const ServedTables& tables, uint32_t layer_index, uint32_t partition,
            const std::vector<uint64_t>& rows, const char* found_by);
  bool WaitUntil(TimePoint time);
  bool stopping() const;

  const Loaded loaded_;
  const Pause pause_;
  const MemoryScrubberOptions options_;
  const Clock& clock_ = Clock::Real();
  Metrics metrics_;
  ReadRate rate_;
  std::map<Place, TimePoint> failed_;  // the thread's own: when to try again

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  bool stop_ = false;
  std::deque<RowReport> reports_;

  Status started_;
  std::thread thread_;
};

}  // namespace engram::memnode
