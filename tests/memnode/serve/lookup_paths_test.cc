// One cluster of procedural tables asked over every path: the same bytes, exact counts, and what
// each path does when the owner stops or dies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "common/base/rng.h"
#include "common/client/lookup/client.h"
#include "common/table/procedural.h"
#include "memnode/node/node.h"
#include "tests/support/allocation_count.h"
#include "tests/support/fakes/loopback_transport.h"

namespace engram::memnode {
namespace {

using client::Path;
using testing::HasSubstr;

TimePoint Soon() { return Clock::Real().Now() + std::chrono::seconds(20); }

class LookupPathsTest : public testing::Test {
 protected:
  static constexpr uint64_t kSeed = 11;

  LookupPathsTest() : layout_(*table::MakeProceduralLayout(Spec())) {
    config_.procedural_layout = Spec().layout;
    config_.procedural_rows_scale = Spec().rows_scale;
    config_.procedural_seed = kSeed;
    config_.arena_share = "on";
    config_.control_listen = config_.http_listen = "127.0.0.1:0";
    config_.limits_drain_timeout_ms = 100;
    config_.cluster_members = {"m0", "m1"};
  }
  static table::ProceduralSpec Spec() {
    return {.layout = "v41", .rows_scale = 0.0002, .seed = kSeed};
  }
  void StartNodes(bool one_sided) {
    hub_.SetOneSided(one_sided);
    for (const char* name : {"m0", "m1"}) {
      config_.node_name = name;
      auto node = Node::Start(config_, [this]() -> Result<std::unique_ptr<net::Transport>> {
        auto transport = hub_.MakeTransport();
        addresses_.push_back(transport->address());
        return transport;
      });
      ASSERT_TRUE(node.ok()) << node.status().message();
      nodes_.push_back(std::move(*node));
    }
  }
  Result<std::unique_ptr<client::LookupClient>> Connect(client::PathChoice path) {
    client::LookupClientOptions options;
    for (const auto& node : nodes_) options.memnodes.push_back(node->control_address());
    options.identity = table::MakeProceduralIdentity(Spec(), layout_);
    options.path = path;
    options.make_transport = [this]() -> Result<std::unique_ptr<net::Transport>> {
      return hub_.MakeTransport();
    };
    return client::LookupClient::Connect(options, layout_);
  }

  struct Lookup {
    std::vector<std::vector<uint64_t>> rows;
    std::vector<std::vector<std::byte>> out;
    std::vector<client::LayerLookup> layers;
  };
  Lookup MakeLookup(uint64_t seed, size_t count) const {
    Lookup lookup;
    Rng rng(seed);
    const size_t row_bytes = layout_.row_format.row_bytes();
    for (const table::LayerLayout& layer : layout_.layers) {
      std::vector<uint64_t> rows(count);
      for (uint64_t& row : rows) row = rng.NextBelow(layer.total_rows);
      lookup.rows.push_back(std::move(rows));
      lookup.out.emplace_back(count * row_bytes);
    }
    for (uint32_t i = 0; i < lookup.rows.size(); ++i) {
      client::LayerLookup layer;
      layer.layer_index = i;
      layer.rows = lookup.rows[i];
      layer.out = lookup.out[i];
      lookup.layers.push_back(layer);
    }
    return lookup;
  }
  void ExpectRight(const Lookup& lookup) const {
    std::vector<std::byte> expected(layout_.row_format.row_bytes());
    for (uint32_t i = 0; i < lookup.rows.size(); ++i) {
      for (size_t k = 0; k < lookup.rows[i].size(); ++k) {
        table::FillProceduralRow(layout_.row_format, kSeed, i, lookup.rows[i][k], expected);
        const auto got = std::span(lookup.out[i]).subspan(k * expected.size(), expected.size());
        ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.begin())) << i << " " << k;
      }
    }
  }
  static Status Run(client::RowSource& source, const Lookup& lookup) {
    ASSIGN_OR_RETURN(auto ticket, source.Submit(lookup.layers, Soon()));
    for (const client::LayerLookup& layer : lookup.layers) {
      RETURN_IF_ERROR(ticket.Wait(layer.layer_index));
    }
    return OkStatus();
  }
  static uint64_t RowsBy(const client::RowSource& source, Path path) {
    uint64_t rows = 0;
    for (const auto& node : source.stats().nodes)
      rows += node.rows_by_path[static_cast<size_t>(path)];
    return rows;
  }

  const table::TableLayout layout_;
  NodeConfig config_;
  net::LoopbackHub hub_;
  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

TEST_F(LookupPathsTest, EveryPathBringsTheSameBytes) {
  StartNodes(true);
  for (const Path path : {Path::kLocal, Path::kGather, Path::kOneSided}) {
    auto client = Connect(path);
    ASSERT_TRUE(client.ok()) << client.status().message();
    for (const size_t count : {1u, 24u, 300u, 5000u}) {
      const Lookup lookup = MakeLookup(count, count);
      const Status got = Run(**client, lookup);
      ASSERT_TRUE(got.ok()) << got.message();
      ExpectRight(lookup);
    }
    const client::SourceStats stats = (*client)->stats();
    EXPECT_EQ(RowsBy(**client, path), stats.rows_distinct) << client::PathName(path);
    EXPECT_EQ((*client)->messages_dropped(), 0u);
  }
}

TEST_F(LookupPathsTest, AutoMeasuresThePathsAndTakesOne) {
  StartNodes(true);
  auto client = Connect(client::PathChoice());
  ASSERT_TRUE(client.ok()) << client.status().message();
  for (const std::string& line : (*client)->DescribePaths()) {
    for (const char* path : {"local", "gather", "one_sided"}) EXPECT_THAT(line, HasSubstr(path));
    EXPECT_THAT(line, HasSubstr("ns/row"));
  }
  const Lookup lookup = MakeLookup(3, 1000);
  ASSERT_TRUE(Run(**client, lookup).ok());
  ExpectRight(lookup);
  EXPECT_EQ(RowsBy(**client, Path::kLocal) + RowsBy(**client, Path::kGather) +
                RowsBy(**client, Path::kOneSided),
            (*client)->stats().rows_distinct);
}

TEST_F(LookupPathsTest, APathThatCannotBeHadIsToldByName) {
  config_.arena_share = "off";
  StartNodes(false);
  const Status local = Connect(Path::kLocal).status();
  EXPECT_EQ(local.code(), Code::kUnavailable);
  EXPECT_THAT(local.message(), testing::AllOf(HasSubstr("lookup path local"), HasSubstr("m0"),
                                              HasSubstr("arena.share")));
  const Status one_sided = Connect(Path::kOneSided).status();
  EXPECT_EQ(one_sided.code(), Code::kFailedPrecondition);
  EXPECT_THAT(one_sided.message(), HasSubstr("no one-sided reads"));
  auto any = Connect(client::PathChoice());
  ASSERT_TRUE(any.ok());
  ASSERT_TRUE(Run(**any, MakeLookup(1, 10)).ok());
  EXPECT_EQ(RowsBy(**any, Path::kGather), (*any)->stats().rows_distinct);
}

TEST_F(LookupPathsTest, AStoppedOwnerIsNoMatterWhereItIsNotAsked) {
  StartNodes(true);
  auto gather = Connect(Path::kGather);
  auto local = Connect(Path::kLocal);
  auto one_sided = Connect(Path::kOneSided);
  ASSERT_TRUE(gather.ok() && local.ok() && one_sided.ok());
  for (const std::string& address : addresses_) hub_.Stop(address);
  for (client::RowSource* source : {&**local, &**one_sided}) {
    const Lookup lookup = MakeLookup(5, 700);
    const Status got = Run(*source, lookup);
    EXPECT_TRUE(got.ok()) << got.message();
    ExpectRight(lookup);
  }
  const Lookup lookup = MakeLookup(6, 10);
  auto ticket =
      (*gather)->Submit(lookup.layers, Clock::Real().Now() + std::chrono::milliseconds(50));
  ASSERT_TRUE(ticket.ok());
  EXPECT_EQ(ticket->Wait(0).code(), Code::kDeadlineExceeded);
}

TEST_F(LookupPathsTest, ADeadOwnerEndsEveryPathWithItsName) {
  StartNodes(true);
  for (const Path path : {Path::kLocal, Path::kGather, Path::kOneSided}) {
    auto client = Connect(path);
    ASSERT_TRUE(client.ok());
    ASSERT_TRUE(Run(**client, MakeLookup(1, 100)).ok());
    nodes_.clear();
    Status got = OkStatus();
    const TimePoint limit = Soon();
    while (got.ok() && Clock::Real().Now() < limit) got = Run(**client, MakeLookup(2, 100));
    EXPECT_EQ(got.code(), Code::kUnavailable) << got.message();
    EXPECT_THAT(got.message(), HasSubstr("memory node m"));
    addresses_.clear();
    StartNodes(true);
  }
}

TEST_F(LookupPathsTest, ADamagedOneSidedReadIsDataLossAndNeverRows) {
  StartNodes(true);
  auto client = Connect(Path::kOneSided);
  ASSERT_TRUE(client.ok());
  hub_.CorruptNextReads(addresses_[0], 1);
  const Status got = Run(**client, MakeLookup(9, 200));
  EXPECT_EQ(got.code(), Code::kDataLoss) << got.message();
  const Lookup next = MakeLookup(10, 200);
  ASSERT_TRUE(Run(**client, next).ok());
  ExpectRight(next);
}

TEST_F(LookupPathsTest, ALayersOwnDeadlineEndsThatLayerAlone) {
  StartNodes(false);
  auto client = Connect(Path::kGather);
  ASSERT_TRUE(client.ok());
  for (const std::string& address : addresses_) hub_.Hold(address);
  Lookup lookup = MakeLookup(4, 50);
  lookup.layers[0].deadline = Clock::Real().Now() + std::chrono::milliseconds(20);
  auto ticket = (*client)->Submit(lookup.layers, Soon());
  ASSERT_TRUE(ticket.ok());
  EXPECT_EQ(ticket->Wait(0).code(), Code::kDeadlineExceeded);
  for (const std::string& address : addresses_) hub_.Release(address);
  EXPECT_TRUE(ticket->Wait(1).ok());
}

// After a few steps of a size nothing is allocated any more. It all happens in this thread; the
// idle nodes beside it stand on the fake transport, which allocates.
TEST_F(LookupPathsTest, WarmLookupsAllocateNothing) {
  StartNodes(true);
  auto client = Connect(Path::kLocal);
  ASSERT_TRUE(client.ok());
  const Lookup lookup = MakeLookup(1, 2000);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Run(**client, lookup).ok());
  const uint64_t before = testing_support::ThreadAllocationCount();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(Run(**client, lookup).ok());
  EXPECT_EQ(testing_support::ThreadAllocationCount(), before);
  ExpectRight(lookup);
}

}  // namespace
}  // namespace engram::memnode
