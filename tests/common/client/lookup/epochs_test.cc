// The cluster's map changes while a client reads: it hears of that, connects to the members of the
// new map, and goes over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/client/lookup/fake_cluster.h"
#include "tests/support/eventually.h"

namespace engram::client {
namespace {

using testing_support::Eventually;

class LookupEpochs : public testing::TestWithParam<bool> {
 protected:
  LookupEpochs() {
    cluster_.StartAll();
    client_ = cluster_.MustConnect();
  }
  // Whether a lookup brings its rows; they are compared.
  bool Reads(uint64_t seed) {
    Lookup lookup(seed, 200);
    auto ticket = client_->Submit(lookup.Layers(), Clock::Real().Now() + std::chrono::seconds(20));
    if (!ticket.ok() || !ticket->Wait(0).ok() || !ticket->Wait(1).ok()) return false;
    EXPECT_TRUE(lookup.Right(0) && lookup.Right(1));
    return true;
  }
  // The second map has m2, too, which the client was not told of, and all addresses.
  void Grow() {
    cluster_.map.epoch = 2;
    cluster_.map.members.push_back("m2");
    // Listens, so that its address is known, and starts again with the map that tells it.
    cluster_.StartNode(cluster_.BehaviourOf(2));
    cluster_.map.addresses = cluster_.options.memnodes;
    cluster_.StopNode(2);
    cluster_.RestartNode(2, cluster_.BehaviourOf(2));
  }
  void Restart(size_t node) {
    cluster_.StopNode(node);
    cluster_.RestartNode(node, cluster_.BehaviourOf(node));
  }

  FakeCluster cluster_{2, GetParam()};
  std::unique_ptr<LookupClient> client_;
};
INSTANTIATE_TEST_SUITE_P(Transports, LookupEpochs, testing::Bool(),
                         [](const auto& of) { return of.param ? "ucx" : "loopback"; });

TEST_P(LookupEpochs, AClientGoesOverToMembersItWasNotToldOf) {
  ASSERT_TRUE(Reads(1));
  const uint64_t asked = client_->stats().rows_asked;
  Grow();
  Restart(0);
  Restart(1);
  EXPECT_TRUE(Eventually([&] { return client_->stats().epoch == 2; }));
  EXPECT_TRUE(Eventually([&] { return Reads(2); }));
  EXPECT_EQ(client_->stats().nodes.size(), 3u);
  EXPECT_GT(client_->stats().nodes[2].rows_fetched, 0u);
  EXPECT_GT(client_->stats().rows_asked, asked) << "what was counted before stays";
  EXPECT_FALSE(client_->OwnersOf(0, 1).empty());
}

// The one that is first to say so may be a member no more, and the others not so far yet.
TEST_P(LookupEpochs, WhatOneNodeToldIsLookedForUntilItIsThere) {
  cluster_.nodes[0]->TellEpoch(2);
  for (uint64_t seed = 1; seed < 20; ++seed) ASSERT_TRUE(Reads(seed)) << "by the map before";
  const int hellos = cluster_.nodes[1]->hellos();
  EXPECT_TRUE(Eventually([&] { return cluster_.nodes[1]->hellos() > hellos + 1; }));
  EXPECT_EQ(client_->stats().epoch, 1u);
  Grow();
  Restart(0);
  Restart(1);
  EXPECT_TRUE(Eventually([&] { return client_->stats().epoch == 2; }));
  EXPECT_TRUE(Eventually([&] { return Reads(2); }));
}

TEST_P(LookupEpochs, ANodeThatHasLeftIsPassedOverAtConnect) {
  client_.reset();
  Grow();
  Restart(1);
  FakeNode::Behaviour left = cluster_.BehaviourOf(0);
  left.refuse_hellos = NotFound("m9 is no member of the cluster");
  cluster_.StopNode(0);
  cluster_.RestartNode(0, left);
  // m0 is another node now, at an address that only the map tells.
  cluster_.StartNode(cluster_.BehaviourOf(0));
  cluster_.map.addresses[0] = cluster_.options.memnodes[3];
  for (const size_t node : {1u, 2u}) Restart(node);
  cluster_.StopNode(3);
  cluster_.RestartNode(3, cluster_.BehaviourOf(0));
  cluster_.options.memnodes.resize(2);
  client_ = cluster_.MustConnect();
  EXPECT_TRUE(Reads(5));
  EXPECT_EQ(client_->stats().nodes.size(), 3u);
  cluster_.options.memnodes.resize(1);
  const auto none = cluster_.Connect();
  EXPECT_EQ(none.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(none.status().message(), testing::HasSubstr("no member"));
}

}  // namespace
}  // namespace engram::client
