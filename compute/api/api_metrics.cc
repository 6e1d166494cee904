#include "compute/api/api_metrics.h"

#include <fmt/format.h>

#include <utility>

#include "common/obs/log_samples.h"

namespace engram::compute {
namespace {

constexpr const char* kPrefix = "engram_compute_";

std::vector<double> SecondsBounds() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300};
}

std::vector<double> TokenBounds() { return {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536}; }

double Seconds(Nanos time) { return static_cast<double>(time.count()) * 1e-9; }

}  // namespace

ApiMetrics::ApiMetrics()
    : first_token_(metrics_.GetHistogram("engram_compute_time_to_first_token_seconds",
                                         "from a request's arrival to its first token",
                                         SecondsBounds())),
      next_token_(metrics_.GetHistogram("engram_compute_inter_token_seconds",
                                        "between two tokens of a request", SecondsBounds())),
      request_(metrics_.GetHistogram("engram_compute_request_seconds",
                                     "from a request's arrival to its end", SecondsBounds())),
      queue_(metrics_.GetHistogram("engram_compute_request_queue_seconds",
                                   "until the engine began with a request", SecondsBounds())),
      prefill_(metrics_.GetHistogram("engram_compute_request_prefill_seconds",
                                     "from there to its first token", SecondsBounds())),
      decode_(metrics_.GetHistogram("engram_compute_request_decode_seconds",
                                    "from its first token to its end", SecondsBounds())),
      prompt_tokens_(metrics_.GetHistogram("engram_compute_request_prompt_tokens",
                                           "prompt length of requests", TokenBounds())),
      completion_tokens_(metrics_.GetHistogram("engram_compute_request_completion_tokens",
                                               "tokens generated for requests", TokenBounds())),
      gone_(metrics_.GetCounter("engram_compute_clients_gone_total",
                                "requests cancelled because their client left")) {}

void ApiMetrics::FirstToken(Nanos since_request) { first_token_.Observe(Seconds(since_request)); }
void ApiMetrics::NextToken(Nanos since_last) { next_token_.Observe(Seconds(since_last)); }
void ApiMetrics::ClientGone() { gone_.Add(); }

void ApiMetrics::Finished(std::string_view reason, Nanos since_request, int64_t prompt_tokens,
                          int64_t completion_tokens) {
  Ended(reason);
  request_.Observe(Seconds(since_request));
  prompt_tokens_.Observe(static_cast<double>(prompt_tokens));
  completion_tokens_.Observe(static_cast<double>(completion_tokens));
}

void ApiMetrics::Phases(const Finish& finish) {
  queue_.Observe(Seconds(finish.queue_time));
  if (finish.prefill_time > Nanos::zero()) prefill_.Observe(Seconds(finish.prefill_time));
  if (finish.decode_time > Nanos::zero()) decode_.Observe(Seconds(finish.decode_time));
}

void ApiMetrics::Ended(std::string_view reason) {
  metrics_
      .GetCounter("engram_compute_requests_finished_total", "requests that ended, by reason",
                  {{"reason", std::string(reason)}})
      .Add();
}

void ApiMetrics::Answered(int status) {
  metrics_
      .GetCounter("engram_compute_http_responses_total", "HTTP answers by status",
                  {{"status", std::to_string(status)}})
      .Add();
}

void ApiMetrics::TellTables(const std::string& model, const TablesInfo& tables) {
  if (!tables.any) return;
  tables_ = {{"model", model},
             {"source", tables.remote ? "memory_nodes" : "model_folder"},
             {"version", tables.version},
             {"content_digest", tables.content_digest},
             {"compared", tables.compared}};
}

void ApiMetrics::Advance(const std::string& name, const std::string& help, double total,
                         const obs::Labels& labels) {
  obs::Counter& counter = metrics_.GetCounter(kPrefix + name, help, labels);
  if (total > counter.Value()) counter.Add(total - counter.Value());
}

void ApiMetrics::Show(const std::string& name, const std::string& help, double value,
                      const obs::Labels& labels) {
  shown_.push_back({kPrefix + name, help, obs::Sample::Kind::kGauge, labels, value});
}

std::string ApiMetrics::Text(const EngineSnapshot& s) {
  const auto number = [](auto value) { return static_cast<double>(value); };
  Show("requests_running", "requests being computed", number(s.running));
  Show("requests_waiting", "requests in the queue", number(s.waiting));
  Show("cache_pages_used_ratio", "share of the latent cache that running requests hold",
       number(s.pages_used) / number(std::max<int64_t>(1, s.pages_total)));
  Show("memory_ok", "1 while each Engram row can be had and the ranks work together",
       s.memory.ok() ? 1 : 0);
  if (!tables_.empty()) {
    Show("tables_info",
         "1; which tables the rows come from, and what of them was compared with the engine's own",
         1, tables_);
  }
  Show("draining", "1 while shutting down", s.draining ? 1 : 0);
  Advance("prompt_tokens_total", "prompt tokens computed", number(s.prompt_tokens));
  Advance("generation_tokens_total", "tokens generated", number(s.generated_tokens));
  Advance("prefix_cache_queried_tokens_total", "prompt tokens looked up in the prefix cache",
          number(s.prefix_queried_tokens));
  Advance("prefix_cache_hit_tokens_total", "prompt tokens found there",
          number(s.prefix_hit_tokens));
  Advance("preemptions_total", "requests that gave up their pages for others",
          number(s.preemptions));
  Advance("steps_total", "steps computed", number(s.steps));
  Advance("step_seconds_total", "time in steps", number(s.step_ns) * 1e-9);
  Advance("engram_rows_requested_total", "Engram rows asked for", number(s.rows.rows_asked));
  Advance("engram_rows_unique_total", "of them after duplicates were removed",
          number(s.rows.rows_distinct));
  Advance("engram_prefetch_late_tokens_total", "tokens whose rows were not asked for in advance",
          number(s.late_tokens));
  Advance("engram_degraded_positions_total", "positions computed without their rows",
          number(s.degraded_positions));
  for (const LayerWait& wait : s.layer_waits) {
    Advance("engram_fetch_exposed_seconds_total", "time the engine stood still for a layer's rows",
            number(wait.exposed_ns) * 1e-9, {{"layer", std::to_string(wait.layer_id)}});
  }
  metrics_
      .GetHistogram("engram_compute_step_tokens", "tokens computed in a step", s.step_tokens.bounds)
      .Set(s.step_tokens);
  Advance("rank_exchange_seconds_total",
          "time rank 0 was in gathers and broadcasts with the other ranks, waiting included",
          number(s.rank_exchange_ns) * 1e-9);
  Advance("rank_exchange_bytes_total", "bytes that the ranks gathered and broadcast",
          number(s.rank_exchange_bytes));
  ShowRows(s);
  ShowExperts(s.expert_load);
  for (obs::Sample& sample : obs::LogSamples("engram_compute")) {
    shown_.push_back(std::move(sample));
  }
  return metrics_.Text(std::exchange(shown_, {}));
}

void ApiMetrics::ShowExperts(const ExpertLoad& load) {
  static const std::string help = fmt::format(
      "tokens given to each expert, computed again ones included; of models with more than {} "
      "experts in all layers only every n-th layer",
      ExpertLoad::kExpertsMax);
  for (const ExpertLoad::Layer& layer : load.layers()) {
    for (size_t e = 0; e < layer.tokens.size(); ++e) {
      Advance("moe_expert_tokens_total", help, static_cast<double>(layer.tokens[e]),
              {{"layer", std::to_string(layer.layer_id)}, {"expert", std::to_string(e)}});
    }
  }
}

void ApiMetrics::ShowRows(const EngineSnapshot& s) {
  metrics_
      .GetHistogram("engram_compute_engram_fetch_latency_seconds",
                    "of a step's lookup, from asking to the last row", s.fetch_seconds.bounds)
      .Set(s.fetch_seconds);
  const auto of_tier = [&](std::string_view tier, uint64_t rows) {
    Advance("engram_rows_total", "Engram rows by where they came from", static_cast<double>(rows),
            {{"tier", std::string(tier)}});
  };
  of_tier("client_cache", s.rows.rows_cached);
  if (s.rows.nodes.empty()) of_tier("in_process", s.rows.rows_asked - s.rows.rows_cached);
  std::array<uint64_t, client::kPathCount> by_path = {};
  for (const client::SourceStats::Node& node : s.rows.nodes) {
    Show("node_up", "1 while the memory node is connected and answers", node.status.ok() ? 1 : 0,
         {{"node", node.name}});
    Show("node_suspect", "1 while the memory node is silent though a request is late",
         node.suspect ? 1 : 0, {{"node", node.name}});
    Advance("engram_bytes_fetched_total", "bytes of rows from a memory node",
            static_cast<double>(node.bytes_fetched), {{"node", node.name}});
    for (size_t i = 0; i < by_path.size(); ++i) by_path[i] += node.rows_by_path[i];
  }
  if (!s.rows.nodes.empty()) ShowCluster(s.rows);
  for (size_t i = 0; i < by_path.size() && !s.rows.nodes.empty(); ++i) {
    of_tier(fmt::format("node_{}", client::PathName(static_cast<client::Path>(i))), by_path[i]);
  }
}

void ApiMetrics::ShowCluster(const client::SourceStats& rows) {
  Show("engram_epoch", "version of the memory nodes' member list", rows.epoch);
  Advance("engram_failovers_total", "requests to another owner of rows after the first had failed",
          static_cast<double>(rows.failovers));
  Advance("engram_hedges_sent_total", "requests to another owner of rows while the first was late",
          static_cast<double>(rows.hedges_sent));
  Advance("engram_hedges_won_total", "of them, answered before the first",
          static_cast<double>(rows.hedges_won));
  Advance("engram_reconnects_total", "memory nodes that were lost and are connected again",
          static_cast<double>(rows.reconnects));
}

}  // namespace engram::compute
