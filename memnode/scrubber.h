// The background check of everything a store holds: reads each complete table set at a limited
// rate, over and over, and repairs what is damaged; at once where damage was reported by somebody
// who read. Its place and counters are kept in records `scrub/<id>`, so that it goes on after a
// restart.
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
#include "memnode/repair.h"
#include "memnode/row_store.h"
#include "memnode/table_reader.h"
#include "memnode/verify.h"

namespace engram::memnode {

struct ScrubberOptions {
  double mib_per_s = 8;                          // of rows; 0: only what is reported is looked at
  Nanos idle_pause = std::chrono::minutes(10);   // between two passes over everything
  Nanos retry_pause = std::chrono::seconds(60);  // before a failed repair is tried again
  Nanos refresh_period = std::chrono::seconds(10);  // looks for new and dropped table sets
  size_t reports_max = 4096;                        // waiting; what is reported beyond is dropped
  size_t listed_max = 1000;                         // bad partitions remembered
  const Clock* clock = &Clock::Real();
};

// Of one table set, since it was imported; kept in the store.
struct ScrubState {
  uint64_t next_partition = 0;  // over the held partitions of all layers, in order
  uint64_t passes = 0;
  double last_pass_seconds = 0;
  uint64_t pages_checked = 0;
  uint64_t bad_pages_found = 0;
  uint64_t bad_pages_repaired = 0;
};

class Scrubber {
 public:
  // All outlive it. Starts at once.
  Scrubber(RowStore& store, Repairer& repairer, obs::Metrics& metrics,
           const ScrubberOptions& options = {});
  ~Scrubber();  // soon: stops within a page

  // Asks for a page to be looked at and repaired now. Never blocks. False when too much is waiting;
  // duplicates count as one.
  bool ReportDamage(TableSetId table_set, uint32_t layer_index, uint64_t page);
  // The store's table sets have changed. Never blocks.
  void Refresh();

  // What is damaged now and could not be repaired, at most listed_max.
  std::vector<Damage> Bad() const;
  // By table set.
  std::map<TableSetId, ScrubState> States() const;
};

}  // namespace engram::memnode
