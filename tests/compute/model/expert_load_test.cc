// Which layers' experts are counted, and that the engine counts every token it computes.
#include "compute/model/expert_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

std::vector<int64_t> LayersOf(int experts, int64_t dense_layers, int64_t layer_count) {
  ModelConfig config;
  config.route.experts = experts;
  config.dense_layers = dense_layers;
  config.layer_count = layer_count;
  ExpertLoad load(config);
  std::vector<int64_t> ids;
  for (const ExpertLoad::Layer& layer : load.layers()) {
    EXPECT_EQ(layer.tokens.size(), static_cast<size_t>(experts));
    ids.push_back(layer.layer_id);
  }
  for (int64_t id = 0; id < layer_count; ++id) {
    const bool counted = std::find(ids.begin(), ids.end(), id) != ids.end();
    EXPECT_EQ(!load.Of(id).empty(), counted) << "layer " << id;
    if (counted) load.Of(id)[0] = id;
  }
  for (const ExpertLoad::Layer& layer : load.layers()) EXPECT_EQ(layer.tokens[0], layer.layer_id);
  return ids;
}

TEST(ExpertLoad, CountsEveryNthLayerOfALargeModel) {
  EXPECT_EQ(LayersOf(16, 1, 5), (std::vector<int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(LayersOf(256, 3, 61), (std::vector<int64_t>{3, 11, 19, 27, 35, 43, 51, 59}));
  EXPECT_EQ(LayersOf(4096, 1, 9), (std::vector<int64_t>{1}));
  EXPECT_TRUE(LayersOf(0, 0, 4).empty());
  EXPECT_TRUE(LayersOf(8, 4, 4).empty()) << "all layers are dense";
  EXPECT_TRUE(ExpertLoad().Of(0).empty());
}

TEST(ExpertLoad, HasEveryTokenThatTheEngineComputed) {
  TinyEngine tiny({}, TinyServing());
  ASSERT_TRUE(tiny.Run(RequestOf(RandomTokens(4, 30, 97), 10)).ok());
  const EngineSnapshot snapshot = tiny.engine->Snapshot();
  const int64_t computed = 30 + 9;  // the last one is sampled only
  ASSERT_EQ(snapshot.expert_load.layers().size(), 3u);
  for (const ExpertLoad::Layer& layer : snapshot.expert_load.layers()) {
    EXPECT_EQ(std::accumulate(layer.tokens.begin(), layer.tokens.end(), int64_t{0}),
              computed * tiny.config.route.experts_per_token)
        << "layer " << layer.layer_id;
  }
}

}  // namespace
}  // namespace engram::compute
