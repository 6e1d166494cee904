// Connecting to a cluster that is not whole, not one, or not right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/client/lookup/fake_cluster.h"

namespace engram::client {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// An address where nothing listens.
std::string DeadAddress() {
  auto server = net::ControlServer::Start("127.0.0.1", 0, {});
  CHECK(server.ok());
  return fmt::format("127.0.0.1:{}", (*server)->port());
}

TEST(LookupConnect, NobodyReachableNamesEveryAddress) {
  FakeCluster cluster(2);
  cluster.options.memnodes = {DeadAddress(), DeadAddress()};
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(
      status.message(),
      AllOf(HasSubstr("no memory node reachable: tried"), HasSubstr(cluster.options.memnodes[0]),
            HasSubstr(cluster.options.memnodes[1]), HasSubstr("refused")));
}

TEST(LookupConnect, OneNodeDownIsNamedAlone) {
  FakeCluster cluster(2);
  cluster.StartNode(cluster.BehaviourOf(0));
  cluster.options.memnodes.push_back(DeadAddress());
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("1 of 2 memory nodes not reachable"),
                                      HasSubstr(cluster.options.memnodes[1]),
                                      Not(HasSubstr(cluster.options.memnodes[0]))));
}

TEST(LookupConnect, AddressesMustBeThereAndWellFormed) {
  FakeCluster cluster(1);
  EXPECT_EQ(cluster.Connect().status().code(), Code::kInvalidArgument);
  cluster.options.memnodes = {"nonsense"};
  EXPECT_THAT(cluster.Connect().status().message(), HasSubstr("\"nonsense\""));
}

TEST(LookupConnect, AnotherTableIsRefusedNamingTheField) {
  FakeCluster cluster(1);
  cluster.StartAll();
  cluster.options.identity.head_dim = 128;
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("head_dim"), HasSubstr("128"), HasSubstr("256")));
}

TEST(LookupConnect, NodesWithDifferentContentAreRefused) {
  FakeCluster cluster(2);
  cluster.StartNode(cluster.BehaviourOf(0));
  auto other = cluster.BehaviourOf(1);
  other.identity.content_digest = std::string(64, 'e');
  cluster.StartNode(other);
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("hold different tables: content digest"),
                                      HasSubstr(cluster.options.memnodes[0]),
                                      HasSubstr(cluster.options.memnodes[1])));
}

TEST(LookupConnect, NodesWithDifferentMapsAreRefused) {
  FakeCluster cluster(2);
  cluster.StartNode(cluster.BehaviourOf(0));
  auto other = cluster.BehaviourOf(1);
  other.map.epoch = 2;
  cluster.StartNode(other);
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("asked for epoch 2 of the cluster"));
}

TEST(LookupConnect, NodesWithDifferentMapsOfOneEpochAreRefused) {
  FakeCluster cluster(2);
  cluster.StartNode(cluster.BehaviourOf(0));
  auto other = cluster.BehaviourOf(1);
  other.map.weights = {1, 2};
  cluster.StartNode(other);
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("different cluster maps"));
}

TEST(LookupConnect, EveryMemberMustBeNamed) {
  FakeCluster cluster(3);
  cluster.StartNode(cluster.BehaviourOf(0));
  cluster.StartNode(cluster.BehaviourOf(2));
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("member m1"));
}

TEST(LookupConnect, TwoNodesWithOneNameAreRefused) {
  FakeCluster cluster(2);
  cluster.StartNode(cluster.BehaviourOf(0));
  cluster.StartNode(cluster.BehaviourOf(0));
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("both call themselves m0"));
}

TEST(LookupConnect, ANodeOutsideTheMapIsRefused) {
  FakeCluster cluster(1);
  cluster.StartNode(cluster.BehaviourOf(0));
  auto stranger = cluster.BehaviourOf(0);
  stranger.member = std::string("stranger");
  cluster.StartNode(stranger);
  EXPECT_THAT(cluster.Connect().status().message(), HasSubstr("calls itself stranger"));
}

TEST(LookupConnect, OtherTransportSettingsAreRefused) {
  FakeCluster cluster(1, /*ucx=*/true);
  cluster.StartAll();
  cluster.options.make_transport = [] {
    return net::MakeUcxTransport({.segment_bytes = 64 * 1024});
  };
  const Status status = cluster.Connect().status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("65536"), HasSubstr("131072")));
}

// Nodes of which each has published another version.
class LookupVersions : public testing::Test {
 protected:
  void Start(size_t node, const std::string& version, uint64_t generation,
             std::vector<std::string> prepared = {}) {
    auto behaviour = cluster_.BehaviourOf(node);
    behaviour.identity.version = version;
    behaviour.generation = generation;
    behaviour.published = generation > 0;
    behaviour.prepared_versions = std::move(prepared);
    cluster_.StartNode(behaviour);
  }
  std::string VersionOf(const std::string& asked) {
    cluster_.options.identity.version = asked;
    const auto client = cluster_.Connect();
    if (!client.ok()) return client.status().message();
    return (*client)->identity().version;
  }
  int Hellos(size_t node) const { return cluster_.nodes[node]->hellos(); }

  FakeCluster cluster_{3};
};

TEST_F(LookupVersions, OnePublishedEverywhereNeedsOneHello) {
  for (size_t node = 0; node < 3; ++node) Start(node, "5", 9);
  EXPECT_EQ(VersionOf(""), "5");
  for (size_t node = 0; node < 3; ++node) EXPECT_EQ(Hellos(node), 1);
}

TEST_F(LookupVersions, TheHighestGenerationDecidesAndTheOthersAreAskedByName) {
  Start(0, "old", 7, {"new"});
  Start(1, "new", 8);
  Start(2, "old", 7, {"new"});
  EXPECT_EQ(VersionOf(""), "new");
  EXPECT_EQ(Hellos(0), 2);
  EXPECT_EQ(Hellos(1), 1);
  EXPECT_EQ(Hellos(2), 2);
}

TEST_F(LookupVersions, ANodeThatHasPublishedNothingYetIsAskedByName) {
  Start(0, "none", 0, {"1"});
  Start(1, "1", 1);
  Start(2, "none", 0, {"1"});
  EXPECT_EQ(VersionOf(""), "1");
}

TEST_F(LookupVersions, ANodeWithoutTheVersionIsNamedWithOneThatHasIt) {
  Start(0, "old", 7, {"new"});
  Start(1, "new", 8);
  Start(2, "old", 7);
  EXPECT_THAT(VersionOf(""), AllOf(HasSubstr("asked for version \"new\""),
                                   HasSubstr(cluster_.options.memnodes[1] + " has"),
                                   HasSubstr(cluster_.options.memnodes[2]), HasSubstr("\"old\"")));
}

TEST_F(LookupVersions, NothingPublishedAnywhereIsTheNodesOwnWord) {
  for (size_t node = 0; node < 3; ++node) Start(node, "1", 0);
  EXPECT_THAT(VersionOf(""), HasSubstr("nothing is published"));
}

TEST_F(LookupVersions, AVersionAskedForByNameIsWhatComes) {
  Start(0, "old", 7, {"new"});
  Start(1, "new", 8, {"old"});
  Start(2, "old", 7, {"new"});
  EXPECT_EQ(VersionOf("old"), "old");
  EXPECT_EQ(VersionOf("new"), "new");
  EXPECT_THAT(VersionOf("never"), HasSubstr("\"never\""));
}

TEST(LookupConnect, KnownRowsThatComeOutDifferentlyAreDataLoss) {
  for (const bool lie : {false, true}) {
    FakeCluster cluster(2);
    for (size_t i = 0; i < 2; ++i) {
      auto behaviour = cluster.BehaviourOf(i);
      behaviour.lie_about_known_row = lie;
      behaviour.wrong_bytes_in_known_row = !lie;
      cluster.StartNode(behaviour);
    }
    const Status status = cluster.Connect().status();
    EXPECT_EQ(status.code(), Code::kDataLoss);
    EXPECT_THAT(status.message(), AllOf(HasSubstr("row 17"), HasSubstr("m0 (")));
  }
}

}  // namespace
}  // namespace engram::client
