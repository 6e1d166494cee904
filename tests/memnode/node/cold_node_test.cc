// A node whose memory is smaller than its share, asked over its wire by the real client: every row
// right, wherever it came from; damage reported to the client that asked, and to no other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/base/rng.h"
#include "common/client/lookup/client.h"
#include "common/net/tcp/transport.h"
#include "memnode/node/node.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/procedural_source.h"
#include "tests/memnode/tiny_checkpoint.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

constexpr int kLayers = 2;

class ColdNodeTest : public testing::Test {
 protected:
  ColdNodeTest() : source_({.layout = "v41", .rows_scale = 0.0002, .seed = 5}) {
    folder_ = FreshFolder("cold");
    config_.model_name = "procedural";
    config_.store_path = folder_ + "/store";
    config_.control_listen = config_.http_listen = "127.0.0.1:0";
    config_.limits_drain_timeout_ms = 100;
    config_.arena_budget_mib = 12;  // of 41
    config_.tiers_cache_mib = 2;
    config_.tiers_readers = 8;
  }
  ~ColdNodeTest() override {
    client_.reset();
    node_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Import() {
    auto store = OpenRocksStore(config_.store_path);
    ASSERT_TRUE(store.ok()) << store.status().message();
    const auto manifest = ImportProcedural(source_, "1", config_.Map(), "m0", **store);
    ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  }
  void Start() {
    auto node = Node::Start(config_);
    ASSERT_TRUE(node.ok()) << node.status().message();
    node_ = std::move(*node);
    Connect(source_.Identity("1"));
  }
  void Connect(table::TableIdentity identity) {
    client::LookupClientOptions options;
    options.memnodes = {node_->control_address()};
    options.identity = std::move(identity);
    options.make_transport = [] { return net::MakeTcpTransport({}); };
    auto client = client::LookupClient::Connect(options, source_.layout());
    ASSERT_TRUE(client.ok()) << client.status().message();
    client_ = std::move(*client);
  }
  // Asks for random rows of both layers and compares them.
  Status Ask(uint64_t seed, size_t count) {
    Rng rng(seed);
    std::vector<std::vector<uint64_t>> rows(kLayers, std::vector<uint64_t>(count));
    std::vector<std::vector<std::byte>> out;
    std::vector<client::LayerLookup> layers;
    for (uint32_t i = 0; i < kLayers; ++i) {
      for (uint64_t& row : rows[i]) row = rng.NextBelow(source_.rows(i));
      out.emplace_back(count * source_.row_format().row_bytes());
      layers.push_back({i, rows[i], out.back()});
    }
    const TimePoint deadline = Clock::Real().Now() + std::chrono::seconds(20);
    ASSIGN_OR_RETURN(auto ticket, client_->Submit(layers, deadline));
    for (uint32_t i = 0; i < kLayers; ++i) {
      RETURN_IF_ERROR(ticket.Wait(i));
      for (size_t k = 0; k < count; ++k) {
        const std::vector<std::byte> expected = source_.Row(i, rows[i][k]);
        const auto got = std::span(out[i]).subspan(k * expected.size(), expected.size());
        EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.begin()))
            << "layer " << i << " row " << rows[i][k];
      }
    }
    return OkStatus();
  }

  const ProceduralSource source_;
  std::string folder_;
  NodeConfig config_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<client::LookupClient> client_;
};

TEST_F(ColdNodeTest, TokensAndPromptsOfRowsFromEveryTierAreRight) {
  Import();
  Start();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Status asked = Ask(seed, 24);
    ASSERT_TRUE(asked.ok()) << asked.message();
  }
  ASSERT_TRUE(Ask(100, 6000).ok());
  ASSERT_TRUE(Ask(100, 6000).ok()) << "again, partly from the cache";
}

TEST_F(ColdNodeTest, ServesWhileLoadingWhatItIsAskedFor) {
  Import();
  config_.arena_budget_mib = 0;
  config_.store_serve_while_loading = true;
  Start();
  for (uint64_t seed = 0; seed < 30; ++seed) ASSERT_TRUE(Ask(seed, 100).ok());
}

TEST_F(ColdNodeTest, ProceduralRowsThatDoNotFitAreComputedWhenAskedFor) {
  const table::ProceduralSpec spec = {.layout = "v41", .rows_scale = 0.0002, .seed = 5};
  config_.procedural_layout = spec.layout;
  config_.procedural_rows_scale = spec.rows_scale;
  config_.procedural_seed = 5;
  config_.arena_budget_mib = 1;
  auto node = Node::Start(config_);
  ASSERT_TRUE(node.ok()) << node.status().message();
  node_ = std::move(*node);
  Connect(table::MakeProceduralIdentity(spec, source_.layout()));
  ASSERT_TRUE(Ask(1, 24).ok());
  ASSERT_TRUE(Ask(2, 6000).ok());
  const std::vector<uint64_t> rows = {source_.rows(0)};
  std::vector<std::byte> out(source_.row_format().row_bytes());
  auto ticket = client_->Submit(std::vector<client::LayerLookup>{{0, rows, out}},
                                Clock::Real().Now() + std::chrono::seconds(20));
  EXPECT_FALSE(ticket.ok() && ticket->Wait(0).ok()) << "a row past the end";
}

TEST_F(ColdNodeTest, ADamagedPageFailsTheLookupsThatNeedItAndNoOthers) {
  Import();
  config_.arena_budget_mib = 2;
  config_.tiers_cache_mib = 1;
  uint64_t flipped = 0;
  for (const auto& entry : std::filesystem::directory_iterator(config_.store_path)) {
    if (entry.path().extension() != ".sst" || entry.file_size() < (1 << 20)) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(entry.file_size() / 2));
    file.put('\x5a');
    file.put('\xa5');
    ++flipped;
  }
  ASSERT_GT(flipped, 0u);
  Start();
  int lost = 0, right = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const Status asked = Ask(seed, 24);
    if (asked.ok()) {
      ++right;
      continue;
    }
    ++lost;
    EXPECT_EQ(asked.code(), Code::kDataLoss) << asked.message();
    EXPECT_THAT(asked.message(), HasSubstr("damaged"));
  }
  EXPECT_GT(right, 0);
  for (uint64_t seed = 0; lost == 0 && seed < 40; ++seed) {
    if (!Ask(1000 + seed, 6000).ok()) ++lost;
  }
  EXPECT_GT(lost, 0);
}

}  // namespace
}  // namespace engram::memnode
