// What the API counts of requests, and the engine's figures, in Prometheus' format. Intervals are
// between two moments of this process' monotonic clock.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/obs/metrics.h"
#include "compute/engine/completion.h"
#include "compute/memory/tables_info.h"

namespace engram::compute {

class ApiMetrics {
 public:
  ApiMetrics();

  // One choice's life, as seen by its stream.
  void FirstToken(Nanos since_request);
  void NextToken(Nanos since_last);
  void Finished(std::string_view reason, Nanos since_request, int64_t prompt_tokens,
                int64_t completion_tokens);
  void Phases(const Finish& finish);    // as the engine timed it
  void Ended(std::string_view reason);  // one the engine did not accept: nothing else is observed
  void ClientGone();
  void Answered(int status);  // an HTTP answer that is not a stream

  // Once, at start: engram_compute_tables_info.
  void TellTables(const std::string& model, const TablesInfo& tables);

  // Takes over the engine's figures and renders everything.
  std::string Text(const EngineSnapshot& snapshot);

 private:
  void Advance(const std::string& name, const std::string& help, double total,
               const obs::Labels& labels = {});
  // Until the next scrape: what is not shown again is gone.
  void Show(const std::string& name, const std::string& help, double value,
            const obs::Labels& labels = {});
  void ShowRows(const EngineSnapshot& snapshot);
  void ShowCluster(const client::SourceStats& rows);
  void ShowExperts(const ExpertLoad& load);

  obs::Metrics metrics_;
  std::vector<obs::Sample> shown_;  // of the scrape under way
  obs::Labels tables_;              // of engram_compute_tables_info; empty: there are none
  obs::Histogram& first_token_;
  obs::Histogram& next_token_;
  obs::Histogram& request_;
  obs::Histogram& queue_;
  obs::Histogram& prefill_;
  obs::Histogram& decode_;
  obs::Histogram& prompt_tokens_;
  obs::Histogram& completion_tokens_;
  obs::Counter& gone_;
};

}  // namespace engram::compute
