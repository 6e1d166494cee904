// The engine's figures as /metrics and /debug/state show them.
#include "compute/api/api_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compute/api/answer_json.h"

namespace engram::compute {
namespace {

using testing::HasSubstr;

EngineSnapshot SnapshotOfTwoLayers() {
  ModelConfig config;
  config.route.experts = 2;
  config.dense_layers = 1;
  config.layer_count = 3;
  EngineSnapshot snapshot;
  snapshot.expert_load = ExpertLoad(config);
  snapshot.expert_load.Of(1)[0] = 5;
  snapshot.expert_load.Of(2)[1] = 7;
  snapshot.rank_exchange_ns = 1'500'000'000;
  snapshot.rank_exchange_bytes = 4096;
  return snapshot;
}

TEST(ApiMetrics, ShowsTheTokensOfEveryExpert) {
  ApiMetrics metrics;
  EngineSnapshot snapshot = SnapshotOfTwoLayers();
  std::string text = metrics.Text(snapshot);
  EXPECT_THAT(text,
              HasSubstr("engram_compute_moe_expert_tokens_total{expert=\"0\",layer=\"1\"} 5"));
  EXPECT_THAT(text,
              HasSubstr("engram_compute_moe_expert_tokens_total{expert=\"1\",layer=\"1\"} 0"));
  EXPECT_THAT(text,
              HasSubstr("engram_compute_moe_expert_tokens_total{expert=\"1\",layer=\"2\"} 7"));
  EXPECT_THAT(text, HasSubstr("of models with more than 2048 experts"));
  snapshot.expert_load.Of(1)[0] = 6;
  text = metrics.Text(snapshot);
  EXPECT_THAT(text,
              HasSubstr("engram_compute_moe_expert_tokens_total{expert=\"0\",layer=\"1\"} 6"));
}

TEST(ApiMetrics, ShowsWhatTheRanksExchanged) {
  const std::string text = ApiMetrics().Text(SnapshotOfTwoLayers());
  EXPECT_THAT(text, HasSubstr("engram_compute_rank_exchange_seconds_total 1.5"));
  EXPECT_THAT(text, HasSubstr("engram_compute_rank_exchange_bytes_total 4096"));
}

TEST(ApiMetrics, ShowsWhichNodesAnswerAndWhichTablesTheyHave) {
  ApiMetrics metrics;
  metrics.TellTables("tiny", {true, true, "7", "abcd", "rows"});
  EngineSnapshot snapshot;
  snapshot.rows.nodes.resize(2);
  snapshot.rows.nodes[0].name = "m0";
  snapshot.rows.nodes[1].name = "m1";
  snapshot.rows.nodes[1].status = snapshot.memory = Unavailable("memory node m1 is gone");
  std::string text = metrics.Text(snapshot);
  EXPECT_THAT(text, HasSubstr("engram_compute_node_up{node=\"m0\"} 1"));
  EXPECT_THAT(text, HasSubstr("engram_compute_node_up{node=\"m1\"} 0"));
  EXPECT_THAT(text, HasSubstr("engram_compute_memory_ok 0"));
  EXPECT_THAT(text,
              HasSubstr("engram_compute_tables_info{compared=\"rows\",content_digest=\"abcd\","
                        "model=\"tiny\",source=\"memory_nodes\",version=\"7\"} 1"));
  snapshot.rows.nodes[1].status = snapshot.memory = OkStatus();
  text = metrics.Text(snapshot);
  EXPECT_THAT(text, HasSubstr("engram_compute_node_up{node=\"m1\"} 1"));
  EXPECT_THAT(text, HasSubstr("engram_compute_memory_ok 1"));
}

TEST(SnapshotJson, HasExpertsAndWhatTheRanksExchanged) {
  const json::object state = SnapshotJson(SnapshotOfTwoLayers());
  EXPECT_EQ(json::serialize(state.at("expert_load")),
            R"([{"layer_id":1,"tokens":[5,0]},{"layer_id":2,"tokens":[0,7]}])");
  EXPECT_EQ(state.at("rank_exchange_ns").as_int64(), 1'500'000'000);
  EXPECT_EQ(state.at("rank_exchange_bytes").as_int64(), 4096);
}

}  // namespace
}  // namespace engram::compute
