#include "memnode/serve/service_metrics.h"

namespace engram::memnode {
namespace {

// From one token's rows in cache to a request that waited for a stalled machine.
const std::vector<double> kSecondsBounds = {5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4,
                                            5e-4, 1e-3, 2.5e-3, 1e-2, 1e-1, 1.0};

}  // namespace

ServiceMetrics::ServiceMetrics(obs::Metrics& metrics)
    : requests(metrics.GetCounter("engram_memnode_requests_total", "Lookups received")),
      bytes(metrics.GetCounter("engram_memnode_bytes_sent_total", "Row bytes sent")),
      peers_given_up(metrics.GetCounter("engram_memnode_peers_given_up_total",
                                        "Clients cut off because they took no data")),
      layers_late(
          metrics.GetCounter("engram_memnode_layers_late_total",
                             "Layers of a lookup left out because their deadline had passed")),
      errors_dropped(metrics.GetCounter("engram_memnode_errors_dropped_total",
                                        "Refusals that could not be sent")),
      sessions(metrics.GetGauge("engram_memnode_sessions", "Clients connected")),
      service_seconds(metrics.GetHistogram("engram_memnode_service_seconds",
                                           "From a lookup's arrival to its last chunk handed over",
                                           kSecondsBounds)),
      unreadable(metrics.GetCounter("engram_memnode_lookups_unreadable_total",
                                    "Lookups that failed because their rows could not be read")) {
  errors.push_back(nullptr);  // kOk is no error
  for (int code = 1; code <= static_cast<int>(Code::kInternal); ++code) {
    errors.push_back(
        &metrics.GetCounter("engram_memnode_errors_total", "Lookups answered with an error",
                            {{"code", std::string(CodeName(static_cast<Code>(code)))}}));
  }
}

}  // namespace engram::memnode
