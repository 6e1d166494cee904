// What the row service counts; names are part of the interface to operators.
#pragma once

#include <vector>

#include "common/base/status.h"
#include "common/obs/metrics.h"
#include "memnode/serve/lookup_outcomes.h"

namespace engram::memnode {

struct ServiceMetrics {
  explicit ServiceMetrics(obs::Metrics& metrics);
  void CountError(Code code) { errors[static_cast<size_t>(code)]->Add(); }
  void CountServed(TimePoint arrived, TimePoint now, size_t rows) {
    const std::chrono::duration<double> took = now - arrived;
    service_seconds.Observe(took.count());
    outcomes.Served(now, rows);
  }
  // A lookup that failed because its rows could not be read.
  void CountUnreadable(TimePoint now, size_t rows) {
    unreadable.Add();
    outcomes.Unreadable(now, rows);
  }

  obs::Counter& requests;             // engram_memnode_requests_total
  obs::Counter& bytes;                // engram_memnode_bytes_sent_total
  obs::Counter& peers_given_up;       // engram_memnode_peers_given_up_total
  obs::Counter& layers_late;          // engram_memnode_layers_late_total
  obs::Counter& errors_dropped;       // engram_memnode_errors_dropped_total
  obs::Gauge& sessions;               // engram_memnode_sessions
  obs::Histogram& service_seconds;    // engram_memnode_service_seconds
  obs::Counter& unreadable;           // engram_memnode_lookups_unreadable_total
  LookupOutcomes outcomes;            // for readiness
  std::vector<obs::Counter*> errors;  // engram_memnode_errors_total{code}, by code > 0
};

}  // namespace engram::memnode
