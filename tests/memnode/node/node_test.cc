// Whole memory nodes in this process, over real sockets and UCX, asked by the real lookup client.
#include "memnode/node/node.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>

#include "common/base/rng.h"
#include "common/checkpoint/checkpoint_tables.h"
#include "common/checkpoint/safetensors.h"
#include "common/client/lookup/client.h"
#include "common/net/tcp/transport.h"
#include "common/net/ucx/transport.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/allocation_count.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

class NodeTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder("node");
    model_path_ = folder_ + "/tiny";
    TinyCheckpoint{.variant = "v41"}.Write(model_path_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  NodeConfig Config(int index, int count) const {
    NodeConfig config;
    config.node_name = fmt::format("m{}", index);
    config.cluster_members.clear();
    for (int i = 0; i < count; ++i) config.cluster_members.push_back(fmt::format("m{}", i));
    config.model_path = model_path_;
    config.store_path = fmt::format("{}/store-{}", folder_, index);
    config.control_listen = "127.0.0.1:0";
    config.http_listen = "127.0.0.1:0";
    config.limits_drain_timeout_ms = 100;
    config.wire.kind = kind_;
    return config;
  }

  std::unique_ptr<Node> StartNode(const NodeConfig& config) {
    auto node = Node::Start(config);
    EXPECT_TRUE(node.ok()) << node.status().message();
    return node.ok() ? std::move(*node) : nullptr;
  }

  Result<std::unique_ptr<client::LookupClient>> Connect(
      const std::vector<std::string>& addresses) const {
    const client::ModelTables model = LoadTiny(model_path_);
    client::LookupClientOptions options;
    options.memnodes = addresses;
    options.identity = model.identity;
    options.make_transport = [this] {
      return kind_ == "ucx" ? net::MakeUcxTransport({}) : net::MakeTcpTransport({});
    };
    return client::LookupClient::Connect(options, model.layout);
  }

  std::string kind_ = "tcp";
  std::string folder_;
  std::string model_path_;
};

class NodeOverEachWire : public NodeTest, public testing::WithParamInterface<const char*> {
 protected:
  NodeOverEachWire() { kind_ = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Wire, NodeOverEachWire, testing::Values("tcp", "ucx"));

TEST_P(NodeOverEachWire, TwoNodesServeEveryRowAsTheCheckpointHasIt) {
  const auto m0 = StartNode(Config(0, 2));
  const auto m1 = StartNode(Config(1, 2));
  ASSERT_TRUE(m0 && m1);
  EXPECT_EQ(m0->identity().content_digest, m1->identity().content_digest);
  EXPECT_EQ(m0->plan().OwnedRows() + m1->plan().OwnedRows(), m0->plan().TotalRows());
  EXPECT_GT(m0->plan().OwnedRows(), 0u);
  EXPECT_GT(m1->plan().OwnedRows(), 0u);
  auto client = Connect({m0->control_address(), m1->control_address()});
  ASSERT_TRUE(client.ok()) << client.status().message();

  const client::ModelTables model = LoadTiny(model_path_);
  const auto checkpoint = io::Checkpoint::Open(model_path_);
  const auto tables = client::CheckpointTables::Open(&*checkpoint, model.config);
  const size_t row_bytes = model.layout.row_format.row_bytes();
  for (uint32_t i = 0; i < model.layout.layers.size(); ++i) {
    std::vector<uint64_t> rows(model.layout.layers[i].total_rows);
    for (size_t row = 0; row < rows.size(); ++row) rows[row] = row;
    std::vector<std::byte> out(rows.size() * row_bytes), expected(out.size());
    const client::LayerLookup lookup{i, rows, out};
    auto ticket = (*client)->Submit({&lookup, 1}, Clock::Real().Now() + std::chrono::seconds(20));
    ASSERT_TRUE(ticket.ok()) << ticket.status().message();
    const Status waited = ticket->Wait(i);
    ASSERT_TRUE(waited.ok()) << waited.message();
    tables->CopyRows(i, 0, rows.size(), expected.data());
    EXPECT_TRUE(out == expected) << "layer index " << i;
  }
}

TEST_F(NodeTest, RestartsFromItsStoreWithoutTheCheckpoint) {
  std::string digest;
  {
    const auto node = StartNode(Config(0, 1));
    ASSERT_TRUE(node);
    digest = node->identity().content_digest;
  }
  const std::vector<std::byte> row = CheckpointRow(model_path_, 1, 5);
  const client::ModelTables model = LoadTiny(model_path_);
  std::filesystem::rename(model_path_, folder_ + "/elsewhere");
  const auto node = StartNode(Config(0, 1));
  ASSERT_TRUE(node);
  EXPECT_EQ(node->identity().content_digest, digest);
  model_path_ = folder_ + "/elsewhere";
  client::LookupClientOptions options;
  options.memnodes = {node->control_address()};
  options.identity = model.identity;
  options.make_transport = [] { return net::MakeTcpTransport({}); };
  auto client = client::LookupClient::Connect(options, model.layout);
  ASSERT_TRUE(client.ok()) << client.status().message();
}

// Node, wire and client, all in this process: after a few steps nothing is allocated per request.
TEST_F(NodeTest, WarmLookupsOverTcpAllocateNothing) {
  const auto node = StartNode(Config(0, 1));
  ASSERT_TRUE(node);
  const client::ModelTables model = LoadTiny(model_path_);
  client::LookupClientOptions options;
  options.memnodes = {node->control_address()};
  options.identity = model.identity;
  options.path = client::Path::kGather;
  options.make_transport = [] { return net::MakeTcpTransport({}); };
  auto client = client::LookupClient::Connect(options, model.layout);
  ASSERT_TRUE(client.ok()) << client.status().message();
  Rng rng(1);
  std::vector<uint64_t> rows(1000);
  for (uint64_t& row : rows) row = rng.NextBelow(model.layout.layers[0].total_rows);
  std::vector<std::byte> out(rows.size() * model.layout.row_format.row_bytes());
  client::LayerLookup lookup;
  lookup.rows = rows;
  lookup.out = out;
  const auto run = [&] {
    auto ticket = (*client)->Submit({&lookup, 1}, Clock::Real().Now() + std::chrono::seconds(20));
    return ticket.ok() && ticket->Wait(0).ok();
  };
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(run());
  // All threads are counted: the store's own now and then allocate, but not in every window.
  uint64_t fewest = UINT64_MAX;
  for (int window = 0; window < 10 && fewest > 0; ++window) {
    const uint64_t before = testing_support::AllocationCount();
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(run());
    fewest = std::min(fewest, testing_support::AllocationCount() - before);
  }
  EXPECT_EQ(fewest, 0u);
}

TEST_F(NodeTest, ClientOfOtherTablesIsRefusedNamingTheField) {
  const auto node = StartNode(Config(0, 1));
  ASSERT_TRUE(node);
  const std::string served = model_path_;
  model_path_ = folder_ + "/other/tiny";
  TinyCheckpoint{.variant = "paper"}.Write(model_path_);
  const auto client = Connect({node->control_address()});
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(client.status().message(), HasSubstr("row_encoding"));
}

TEST_F(NodeTest, OtherTransportSettingsAreRefusedNamingThem) {
  kind_ = "ucx";
  const auto node = StartNode(Config(0, 1));
  ASSERT_TRUE(node);
  const client::ModelTables model = LoadTiny(model_path_);
  client::LookupClientOptions options;
  options.memnodes = {node->control_address()};
  options.identity = model.identity;
  options.make_transport = [] { return net::MakeUcxTransport({.segment_bytes = 64 * 1024}); };
  const auto client = client::LookupClient::Connect(options, model.layout);
  ASSERT_FALSE(client.ok());
  EXPECT_THAT(client.status().message(), HasSubstr("settings"));
  EXPECT_THAT(client.status().message(), HasSubstr("65536"));
}

TEST_F(NodeTest, DrainingNodeRefusesNewClientsAndStops) {
  const auto node = StartNode(Config(0, 1));
  ASSERT_TRUE(node);
  auto client = Connect({node->control_address()});
  ASSERT_TRUE(client.ok()) << client.status().message();
  EXPECT_EQ(node->session_count(), 1u);
  node->Drain();  // gives up on the client after limits.drain_timeout_ms
  auto late = Connect({node->control_address()});
  ASSERT_FALSE(late.ok());
  EXPECT_THAT(late.status().message(), HasSubstr("shutting down"));
}

TEST_F(NodeTest, PortInUseIsOneClearError) {
  const auto node = StartNode(Config(0, 1));
  ASSERT_TRUE(node);
  NodeConfig second = Config(1, 2);
  second.control_listen = node->control_address();
  const auto refused = Node::Start(second);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kAlreadyExists);
  EXPECT_THAT(refused.status().message(), HasSubstr(node->control_address()));
}

}  // namespace
}  // namespace engram::memnode
