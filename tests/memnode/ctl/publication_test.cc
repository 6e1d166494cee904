// Versions over a cluster of two real nodes: published on both or on neither, never mixed by a
// client, readers undisturbed.
#include "memnode/ctl/publication.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "common/base/rng.h"
#include "common/client/lookup/client.h"
#include "common/net/tcp/transport.h"
#include "common/obs/log.h"
#include "memnode/ctl/reservation.h"
#include "memnode/node/node.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/procedural_source.h"

namespace engram::ctl {
namespace {

using memnode::ProceduralSource;
using testing::HasSubstr;

constexpr char kModel[] = "procedural";
constexpr double kScale = 0.00002;

class PublicationTest : public testing::Test {
 protected:
  // The log is made before there are threads that would make it: their meeting inside of its
  // library is one that TSan cannot see.
  static void SetUpTestSuite() { obs::LogInfo("two nodes in one process"); }
  PublicationTest()
      : folder_(std::filesystem::temp_directory_path() /
                fmt::format("publication-{}", ::getpid())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    map_ = {.epoch = 1, .members = {"m0", "m1"}};
    for (const std::string version : {"1", "2"}) {
      for (int node = 0; node < 2; ++node) Import(node, version);
    }
    nodes_.resize(2);
    for (int node = 0; node < 2; ++node) Start(node);
  }
  ~PublicationTest() override {
    nodes_.clear();
    std::filesystem::remove_all(folder_);
  }

  // Version n has rows of seed n.
  static ProceduralSource SourceOf(const std::string& version) {
    return ProceduralSource({.layout = "v41", .rows_scale = kScale, .seed = std::stoull(version)});
  }
  std::string StoreOf(int node) const { return fmt::format("{}/store-{}", folder_, node); }
  void Import(int node, const std::string& version) {
    auto store = memnode::OpenRocksStore(StoreOf(node));
    ASSERT_TRUE(store.ok()) << store.status().message();
    const auto manifest = memnode::ImportProcedural(SourceOf(version), version, map_,
                                                    fmt::format("m{}", node), **store);
    ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  }
  void Start(int node, const std::string& control = "127.0.0.1:0") {
    nodes_[static_cast<size_t>(node)].reset();
    memnode::NodeConfig config;
    config.node_name = fmt::format("m{}", node);
    config.cluster_members = map_.members;
    config.store_path = StoreOf(node);
    config.control_listen = control;
    config.http_listen = "127.0.0.1:0";
    config.limits_drain_timeout_ms = 100;
    config.store_scrub_mib_s = 0;
    config.limits_prepared_timeout_ms = prepared_timeout_ms_;
    auto started = memnode::Node::Start(config);
    ASSERT_TRUE(started.ok()) << started.status().message();
    nodes_[static_cast<size_t>(node)] = std::move(*started);
  }
  std::vector<std::string> Addresses() const {
    std::vector<std::string> addresses;
    for (const auto& node : nodes_) addresses.push_back(node->control_address());
    return addresses;
  }
  Nodes Tool() const { return *Nodes::Open({Addresses(), {}}); }
  static json::object Step(const std::string& command, const std::string& version,
                           uint64_t generation) {
    return {{"command", command},
            {"name", kModel},
            {"version", version},
            {"generation", std::to_string(generation)}};
  }
  // Two tools that each reach one node, and die.
  void Split(uint64_t generation) {
    const Nodes tool = Tool();
    for (const std::string version : {"1", "2"}) {
      ASSERT_TRUE(tool.RunJobs(Step("prepare", version, generation), "prepare").ok());
    }
    ASSERT_TRUE(tool.Call(0, Step("commit", "1", generation)).ok());
    ASSERT_TRUE(tool.Call(1, Step("commit", "2", generation)).ok());
    ASSERT_TRUE(tool.CallAll(Step("abort", "1", generation)).ok());
    ASSERT_TRUE(tool.CallAll(Step("abort", "2", generation)).ok());
  }
  // The version as a node tells it.
  NodeVersion Seen(int node, const std::string& version) const {
    const auto reply = Tool().Call(static_cast<size_t>(node), {{"command", "versions"}});
    const auto versions = VersionsOf(*reply);
    for (const NodeVersion& v : *versions) {
      if (v.version == version) return v;
    }
    return {};
  }

  Result<std::unique_ptr<client::LookupClient>> Connect(const std::string& version) const {
    client::LookupClientOptions options;
    options.memnodes = Addresses();
    options.identity = SourceOf("1").Identity(version);
    options.make_transport = [] { return net::MakeTcpTransport({}); };
    return client::LookupClient::Connect(options, SourceOf("1").layout());
  }
  // Which version the rows that come are of; "mixed" when they are not of one.
  static std::string VersionRead(client::LookupClient& client, uint64_t seed = 1) {
    const ProceduralSource first = SourceOf("1"), second = SourceOf("2");
    Rng rng(seed);
    std::vector<uint64_t> rows(200);
    for (uint64_t& row : rows) row = rng.NextBelow(first.rows(0));
    std::vector<std::byte> out(rows.size() * first.row_format().row_bytes());
    auto ticket = client.Submit(std::vector<client::LayerLookup>{{0, rows, out}},
                                Clock::Real().Now() + std::chrono::seconds(20));
    if (!ticket.ok()) return ticket.status().message();
    if (const Status arrived = ticket->Wait(0); !arrived.ok()) return arrived.message();
    size_t of_first = 0, of_second = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t size = first.row_format().row_bytes();
      const auto got = std::span(out).subspan(i * size, size);
      of_first += std::ranges::equal(got, first.Row(0, rows[i])) ? 1 : 0;
      of_second += std::ranges::equal(got, second.Row(0, rows[i])) ? 1 : 0;
    }
    if (of_first == rows.size()) return "1";
    return of_second == rows.size() ? "2" : "mixed";
  }
  std::string CurrentVersion() const {
    const auto client = Connect("");
    return client.ok() ? VersionRead(**client) : client.status().message();
  }

  const std::string folder_;
  int64_t prepared_timeout_ms_ = 60'000;
  table::ClusterMap map_;
  std::vector<std::unique_ptr<memnode::Node>> nodes_;
};

TEST_F(PublicationTest, PublishRollBackAndDropWhileReadersGoOn) {
  EXPECT_THAT(CurrentVersion(), HasSubstr("is not served here"));
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  EXPECT_EQ(CurrentVersion(), "1");
  const auto reader = *Connect("");
  ASSERT_TRUE(Publish(Tool(), kModel, "2").ok());
  EXPECT_EQ(CurrentVersion(), "2");
  EXPECT_EQ(VersionRead(*reader), "1") << "a reader finishes on the version it began with";
  EXPECT_EQ(*VersionBefore(Tool(), kModel), "1");
  ASSERT_TRUE(Publish(Tool(), kModel, *VersionBefore(Tool(), kModel)).ok());
  EXPECT_EQ(CurrentVersion(), "1");
  for (int node = 0; node < 2; ++node) Start(node);
  EXPECT_EQ(CurrentVersion(), "1") << "after a restart without any folder";
  const Status dropped = DropVersion(Tool(), kModel, "2");
  ASSERT_TRUE(dropped.ok()) << dropped.message();
  EXPECT_THAT(Publish(Tool(), kModel, "2").status().message(), HasSubstr("is not complete"));
}

TEST_F(PublicationTest, WhatOneNodeCannotServeIsPublishedOnNone) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  nodes_[1].reset();
  {
    const auto store = *memnode::OpenRocksStore(StoreOf(1));
    ASSERT_TRUE(memnode::DropTableSet(*store, kModel, "2").ok());
  }
  Start(1);
  const auto published = Publish(Tool(), kModel, "2");
  ASSERT_FALSE(published.ok());
  EXPECT_THAT(published.status().message(),
              testing::AllOf(HasSubstr(nodes_[1]->control_address()), HasSubstr("nothing")));
  EXPECT_EQ(CurrentVersion(), "1");
}

TEST_F(PublicationTest, AToolThatDiesBetweenTheNodesLeavesNoClientMixed) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  const Nodes tool = Tool();
  json::object request = {
      {"command", "prepare"}, {"name", kModel}, {"version", "2"}, {"generation", "2"}};
  ASSERT_TRUE(tool.RunJobs(request, "prepare").ok());
  request["command"] = "promise";
  ASSERT_TRUE(tool.CallAll(request).ok());
  EXPECT_EQ(CurrentVersion(), "1") << "promised everywhere, decided nowhere";
  request["command"] = "commit";
  ASSERT_TRUE(tool.Call(1, request).ok());
  EXPECT_EQ(CurrentVersion(), "2") << "the first commit decides, for all nodes";
  Start(0);
  EXPECT_EQ(CurrentVersion(), "2") << "also when the other one restarts";
  const auto published = Publish(Tool(), kModel, "2");
  ASSERT_TRUE(published.ok()) << published.status().message();
  EXPECT_EQ(*published, 2u) << "the same publication, completed";
  EXPECT_EQ(CurrentVersion(), "2");
}

TEST_F(PublicationTest, APreparationIsNotResurrectedByARestart) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  ASSERT_TRUE(Tool().RunJobs(Step("prepare", "2", 2), "prepare").ok());
  EXPECT_TRUE(Seen(1, "2").prepared && Seen(1, "2").loaded);
  Start(1);
  EXPECT_FALSE(Seen(1, "2").prepared || Seen(1, "2").loaded);
  EXPECT_TRUE(Seen(0, "2").prepared);
  ASSERT_TRUE(AbortPublication(Tool(), kModel, "2").ok());
  EXPECT_FALSE(Seen(0, "2").prepared || Seen(0, "2").loaded);
  EXPECT_EQ(AbortPublication(Tool(), kModel, "2").code(), Code::kNotFound);
  EXPECT_EQ(CurrentVersion(), "1");
}

TEST_F(PublicationTest, APreparationWhoseToolWasKilledIsForgottenByTheNode) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  prepared_timeout_ms_ = 50;
  Start(0);
  ASSERT_TRUE(Tool().RunJobs(Step("prepare", "2", 2), "prepare").ok());
  const TimePoint limit = Clock::Real().Now() + std::chrono::seconds(20);
  while (Seen(0, "2").loaded && Clock::Real().Now() < limit) std::this_thread::yield();
  EXPECT_FALSE(Seen(0, "2").prepared || Seen(0, "2").loaded);
  EXPECT_TRUE(Seen(1, "2").prepared) << "its minute is not over";
  EXPECT_EQ(CurrentVersion(), "1");
}

TEST_F(PublicationTest, APublicationThatIsDecidedIsNotAborted) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  const Nodes tool = Tool();
  ASSERT_TRUE(tool.RunJobs(Step("prepare", "2", 2), "prepare").ok());
  ASSERT_TRUE(tool.CallAll(Step("promise", "2", 2)).ok());
  ASSERT_TRUE(tool.Call(0, Step("commit", "2", 2)).ok());
  EXPECT_THAT(AbortPublication(tool, kModel, "2").message(),
              testing::AllOf(HasSubstr("is published"), HasSubstr(tool.address(1))));
  EXPECT_EQ(CurrentVersion(), "2");
  EXPECT_EQ(*Publish(tool, kModel, "2"), 2u);
}

// v1 on m0 beside v2 on m1.
TEST_F(PublicationTest, ASplitClusterHealsByRepeatingEitherPublication) {
  uint64_t generation = 1;
  for (const std::string again : {"2", "1"}) {
    SCOPED_TRACE("publishing again version " + again);
    Split(++generation);
    EXPECT_TRUE(Seen(0, "1").published && Seen(1, "2").published);
    EXPECT_EQ(*VersionBefore(Tool(), kModel), "1") << "the latest is version 2";
    for (const std::string version : {"1", "2"}) {
      EXPECT_THAT(DropVersion(Tool(), kModel, version).message(),
                  testing::AllOf(HasSubstr("it is published"), HasSubstr("nothing was dropped")));
      EXPECT_NE(Seen(0, version).digest, "");
      EXPECT_NE(Seen(1, version).digest, "");
    }
    const auto published = Publish(Tool(), kModel, again);
    ASSERT_TRUE(published.ok()) << published.status().message();
    for (int node = 0; node < 2; ++node) EXPECT_TRUE(Seen(node, again).published) << node;
    EXPECT_EQ(CurrentVersion(), again);
    generation = *published;
  }
}

// Whatever the order in which the commits of two tools arrive, clients get one version at each
// moment, and the nodes end with one.
TEST_F(PublicationTest, CommitsOfTwoToolsInAnyOrderNeverSplitTheCluster) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  const Nodes tool = Tool();
  struct Commit {
    size_t node;
    std::string version;
  };
  const std::vector<std::vector<Commit>> orders = {{{0, "1"}, {1, "2"}, {1, "1"}, {0, "2"}},
                                                   {{1, "2"}, {0, "1"}, {0, "2"}, {1, "1"}},
                                                   {{0, "2"}, {0, "1"}, {1, "1"}, {1, "2"}},
                                                   {{1, "1"}, {0, "1"}, {1, "2"}, {0, "2"}}};
  uint64_t generation = 1;
  for (const std::vector<Commit>& order : orders) {
    ++generation;
    for (const std::string version : {"1", "2"}) {
      ASSERT_TRUE(tool.RunJobs(Step("prepare", version, generation), "prepare").ok());
      ASSERT_TRUE(tool.CallAll(Step("promise", version, generation)).ok());
    }
    for (const Commit& commit : order) {
      (void)tool.Call(commit.node, Step("commit", commit.version, generation));
      EXPECT_THAT(CurrentVersion(), testing::AnyOf("1", "2")) << generation;
    }
    for (int node = 0; node < 2; ++node) EXPECT_TRUE(Seen(node, "2").published) << generation;
    EXPECT_EQ(CurrentVersion(), "2");
  }
}

TEST_F(PublicationTest, OfTwoToolsAtOnceTheSecondIsRefusedBeforeAnythingChanged) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  const Nodes tool = Tool();
  const Nodes reversed = *Nodes::Open({{Addresses()[1], Addresses()[0]}, {}});
  const auto before = *tool.CallAll({{"command", "versions"}});
  {
    const auto first = Reservation::Take(tool, 0, kModel, "the publication of version 1");
    ASSERT_TRUE(first.ok());
    EXPECT_TRUE(first->Renew().ok());
    const auto refused =
        testing::AllOf(HasSubstr(fmt::format("the publication of version 1 by engramctl on host")),
                       HasSubstr(fmt::format("process {} is under way", ::getpid())),
                       HasSubstr("nothing was changed"));
    EXPECT_THAT(Publish(reversed, kModel, "2").status().message(), refused);
    EXPECT_THAT(DropVersion(reversed, kModel, "2").message(), refused);
    EXPECT_THAT(AbortPublication(reversed, kModel, "2").message(), refused);
    EXPECT_EQ(*tool.CallAll({{"command", "versions"}}), before);
  }
  EXPECT_TRUE(Publish(reversed, kModel, "2").ok()) << "the first has ended";
}

TEST_F(PublicationTest, ToolsThatRaceLeaveOneVersionOnAllNodes) {
  const Nodes one = Tool();
  const Nodes other = *Nodes::Open({{Addresses()[1], Addresses()[0]}, {}});
  for (int round = 0; round < 4; ++round) {
    Status second;
    std::thread racer([&] { second = Publish(other, kModel, "2").status(); });
    const Status first = Publish(one, kModel, "1").status();
    racer.join();
    EXPECT_TRUE(first.ok() || second.ok()) << first.message() << " / " << second.message();
    for (const Status& status : {first, second}) {
      EXPECT_THAT(status.message(), testing::AnyOf("", HasSubstr("is under way")));
    }
    EXPECT_EQ(Seen(0, "1").published, Seen(1, "1").published);
    EXPECT_EQ(Seen(0, "2").published, Seen(1, "2").published);
    EXPECT_THAT(CurrentVersion(), testing::AnyOf("1", "2"));
  }
}

TEST_F(PublicationTest, ARawRequestDoesNotUseUpTheGenerations) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  for (const uint64_t generation : {UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 62}) {
    const auto prepared = Tool().RunJobs(Step("prepare", "2", generation), "prepare");
    EXPECT_EQ(prepared.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(prepared.status().message(), HasSubstr(std::to_string(generation)));
  }
  EXPECT_EQ(*Publish(Tool(), kModel, "2"), 2u);
}

TEST_F(PublicationTest, AVersionThatOneNodeNeedsIsDroppedOnNone) {
  ASSERT_TRUE(Publish(Tool(), kModel, "1").ok());
  const Nodes second = *Nodes::Open({{Addresses()[1]}, {}});
  const json::object pin = {{"command", "pin"}, {"name", kModel}, {"version", "2"}};
  ASSERT_TRUE(second.RunJobs(pin, "pin").ok());
  EXPECT_THAT(DropVersion(Tool(), kModel, "2").message(),
              testing::AllOf(HasSubstr("it is pinned"), HasSubstr("nothing was dropped")));
  EXPECT_NE(Seen(0, "2").digest, "");
  ASSERT_TRUE(second.Call(0, {{"command", "unpin"}, {"name", kModel}, {"version", "2"}}).ok());
  ASSERT_TRUE(DropVersion(Tool(), kModel, "2").ok());
  EXPECT_EQ(DropVersion(Tool(), kModel, "2").code(), Code::kNotFound);
}

// An import whose tool was stopped, its node started again, and another import there meanwhile.
TEST_F(PublicationTest, AJobOfANodeThatWasStartedAgainIsNotAnotherToolsSuccess) {
  const std::string control = nodes_[0]->control_address();
  const Nodes tool = *Nodes::Open({{control}, {}});
  const json::object verify = {{"command", "verify"}, {"name", kModel}, {"version", "1"}};
  const std::string job(tool.Call(0, verify)->at("job").as_string());
  Start(0, control);
  ASSERT_TRUE(tool.RunJobs(verify, "verify").ok()) << "another tool's";
  const Status asked = tool.Call(0, {{"command", "job"}, {"job", job}}).status();
  EXPECT_EQ(asked.code(), Code::kNotFound);
  EXPECT_THAT(asked.message(), testing::AllOf(HasSubstr(control), HasSubstr("started again"),
                                              HasSubstr("run the same command again")));
}

TEST_F(PublicationTest, HalfAClusterIsNotPublishedTo) {
  const Nodes half = *Nodes::Open({{nodes_[0]->control_address()}, {}});
  EXPECT_THAT(Publish(half, kModel, "1").status().message(), HasSubstr("name them all"));
  const Nodes twice = *Nodes::Open({{Addresses()[0], Addresses()[0]}, {}});
  EXPECT_THAT(Publish(twice, kModel, "1").status().message(), HasSubstr("name each once"));
}

TEST_F(PublicationTest, AnUnknownOrMalformedRequestIsRefusedByName) {
  const Nodes tool = Tool();
  EXPECT_THAT(
      tool.Call(0, {{"command", "explode"}, {"name", "a"}, {"version", "b"}}).status().message(),
      HasSubstr("\"explode\""));
  EXPECT_THAT(tool.Call(0, {}).status().message(), HasSubstr("command"));
  EXPECT_THAT(tool.Call(0, {{"command", "job"}, {"job", "99"}}).status().message(),
              HasSubstr("no job 99"));
  EXPECT_THAT(
      tool.Call(0, {{"command", "commit"}, {"name", "a"}, {"version", "b"}, {"generation", "x"}})
          .status()
          .message(),
      HasSubstr("generation"));
}

}  // namespace
}  // namespace engram::ctl
