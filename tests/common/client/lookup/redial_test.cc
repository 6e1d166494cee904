// Nodes that are lost and come back: the client finds them again by itself, with the whole
// handshake, and never takes another node, or other rows, for the one it lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "tests/common/client/lookup/fake_cluster.h"
#include "tests/support/eventually.h"

namespace engram::client {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::Eventually;

TimePoint Soon() { return Clock::Real().Now() + std::chrono::seconds(20); }

class LookupRedial : public testing::TestWithParam<bool> {
 protected:
  void Connect() {
    cluster_.StartAll();
    client_ = cluster_.MustConnect();
  }
  Status StatusOf(size_t node) const { return client_->stats().nodes[node].status; }
  // The status of a lookup that needs both nodes; ok: its rows were compared, too.
  Status Ask(uint64_t seed) {
    Lookup lookup(seed, 200);
    auto ticket = client_->Submit(lookup.Layers(), Soon());
    if (!ticket.ok()) return ticket.status();
    for (const uint32_t layer : {0u, 1u}) RETURN_IF_ERROR(ticket->Wait(layer));
    EXPECT_TRUE(lookup.Right(0) && lookup.Right(1));
    return OkStatus();
  }
  bool AwaitServed() {
    return Eventually([&] { return Ask(3).ok(); });
  }
  bool AwaitStatus(size_t node, const std::string& part) {
    return Eventually([&] { return StatusOf(node).message().find(part) != std::string::npos; });
  }

  FakeCluster cluster_{2, GetParam()};
  std::unique_ptr<LookupClient> client_;
};
INSTANTIATE_TEST_SUITE_P(Transports, LookupRedial, testing::Bool(),
                         [](const auto& of) { return of.param ? "ucx" : "loopback"; });

TEST_P(LookupRedial, ANodeThatRestartsIsServedAgain) {
  Connect();
  for (uint64_t round = 0; round < 3; ++round) {
    ASSERT_TRUE(Ask(round).ok());
    cluster_.StopNode(1);
    ASSERT_TRUE(Eventually([&] { return !StatusOf(1).ok(); }));
    const Status lost = Ask(round);
    EXPECT_EQ(lost.code(), Code::kUnavailable);
    EXPECT_THAT(lost.message(), AllOf(HasSubstr("memory node m1 ("), HasSubstr("is gone")));
    EXPECT_TRUE(StatusOf(0).ok());
    ASSERT_TRUE(AwaitStatus(1, "refused")) << StatusOf(1).message();
    cluster_.RestartNode(1, cluster_.BehaviourOf(1));
    ASSERT_TRUE(AwaitServed()) << StatusOf(1).message();
    EXPECT_TRUE(StatusOf(1).ok());
  }
}

TEST_P(LookupRedial, ComingBackIsInNoCount) {
  Connect();
  ASSERT_TRUE(Ask(1).ok());
  const SourceStats before = client_->stats();
  cluster_.StopNode(0);
  ASSERT_TRUE(Eventually([&] { return !StatusOf(0).ok(); }));
  cluster_.RestartNode(0, cluster_.BehaviourOf(0));
  ASSERT_TRUE(Eventually([&] { return StatusOf(0).ok(); }));
  const SourceStats after = client_->stats();
  EXPECT_EQ(after.rows_asked, before.rows_asked);
  for (size_t node = 0; node < 2; ++node) {
    EXPECT_EQ(after.nodes[node].rows_fetched, before.nodes[node].rows_fetched);
    EXPECT_EQ(after.nodes[node].requests, before.nodes[node].requests);
  }
}

TEST_P(LookupRedial, BothNodesMayBeGoneAtOnce) {
  Connect();
  cluster_.StopNode(0);
  cluster_.StopNode(1);
  ASSERT_TRUE(Eventually([&] { return !StatusOf(0).ok() && !StatusOf(1).ok(); }));
  cluster_.RestartNode(1, cluster_.BehaviourOf(1));
  ASSERT_TRUE(Eventually([&] { return StatusOf(1).ok(); }));
  EXPECT_FALSE(StatusOf(0).ok());
  cluster_.RestartNode(0, cluster_.BehaviourOf(0));
  ASSERT_TRUE(AwaitServed());
}

TEST_P(LookupRedial, OtherTablesAtTheAddressAreNeverServed) {
  Connect();
  cluster_.StopNode(1);
  auto other = cluster_.BehaviourOf(1);
  other.identity.content_digest = std::string(64, 'e');
  cluster_.RestartNode(1, other);
  ASSERT_TRUE(AwaitStatus(1, "content_digest")) << StatusOf(1).message();
  EXPECT_EQ(Ask(1).code(), Code::kUnavailable);
  cluster_.StopNode(1);
  cluster_.RestartNode(1, cluster_.BehaviourOf(1));
  ASSERT_TRUE(AwaitServed()) << StatusOf(1).message();
}

TEST_P(LookupRedial, AnotherMapOrMemberAtTheAddressIsNeverServed) {
  Connect();
  cluster_.StopNode(1);
  auto other = cluster_.BehaviourOf(1);
  other.map.epoch = 7;
  cluster_.RestartNode(1, other);
  ASSERT_TRUE(AwaitStatus(1, "epoch 7")) << StatusOf(1).message();
  cluster_.StopNode(1);
  cluster_.RestartNode(1, cluster_.BehaviourOf(0));
  ASSERT_TRUE(AwaitStatus(1, "member m0")) << StatusOf(1).message();
  EXPECT_EQ(Ask(1).code(), Code::kUnavailable);
}

TEST_P(LookupRedial, ANodeThatDoesNotProveItsRowsStaysAway) {
  Connect();
  cluster_.StopNode(0);
  auto wrong = cluster_.BehaviourOf(0);
  wrong.wrong_bytes_in_known_row = true;
  cluster_.RestartNode(0, wrong);
  ASSERT_TRUE(AwaitStatus(0, "SHA-256")) << StatusOf(0).message();
  EXPECT_EQ(Ask(1).code(), Code::kUnavailable);
  cluster_.StopNode(0);
  cluster_.RestartNode(0, cluster_.BehaviourOf(0));
  ASSERT_TRUE(AwaitServed()) << StatusOf(0).message();
}

TEST_P(LookupRedial, AClientClosesWhileItsNodesAreAway) {
  Connect();
  cluster_.StopNode(0);
  cluster_.StopNode(1);
  ASSERT_TRUE(Eventually([&] { return !StatusOf(0).ok() && !StatusOf(1).ok(); }));
  client_.reset();
}

// The loop told a redialer that was gone.
TEST_P(LookupRedial, ANodeMayBeLostWhileTheClientCloses) {
  cluster_.StartAll();
  for (int round = 0; round < 60; ++round) {
    client_ = cluster_.MustConnect();
    std::thread ends([&] { cluster_.StopNode(1); });
    client_.reset();
    ends.join();
    cluster_.RestartNode(1, cluster_.BehaviourOf(1));
  }
}

}  // namespace
}  // namespace engram::client
