// What the row service counts; names are part of the interface to operators.
#pragma once

#include <vector>

#include "common/base/status.h"
#include "common/obs/metrics.h"

namespace engram::memnode {

struct ServiceMetrics {
  explicit ServiceMetrics(obs::Metrics& metrics);
  void CountError(Code code) { errors[static_cast<size_t>(code)]->Add(); }

  obs::Counter& requests;             // engram_memnode_requests_total
  obs::Counter& bytes;                // engram_memnode_bytes_sent_total
  obs::Counter& peers_given_up;       // engram_memnode_peers_given_up_total
  obs::Counter& layers_late;          // engram_memnode_layers_late_total
  obs::Counter& errors_dropped;       // engram_memnode_errors_dropped_total
  obs::Gauge& sessions;               // engram_memnode_sessions
  obs::Histogram& service_seconds;    // engram_memnode_service_seconds
  std::vector<obs::Counter*> errors;  // engram_memnode_errors_total{code}, by code > 0
};

}  // namespace engram::memnode
