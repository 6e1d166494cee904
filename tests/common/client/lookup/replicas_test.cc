// Rows with several owners: whatever one owner does, lookups go on, and no wrong row is taken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/common/client/lookup/fake_cluster.h"
#include "tests/support/eventually.h"

namespace engram::client {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::Eventually;

TimePoint Soon() { return Clock::Real().Now() + std::chrono::seconds(20); }

class LookupReplicas : public testing::TestWithParam<bool> {
 protected:
  void Connect() {
    cluster_.StartAll();
    client_ = cluster_.MustConnect();
  }
  // The status of a lookup that needs every node's rows; ok: its rows were compared, too.
  Status Ask(uint64_t seed, TimePoint deadline = Soon()) {
    Lookup lookup(seed, 200);
    auto ticket = client_->Submit(lookup.Layers(), deadline);
    if (!ticket.ok()) return ticket.status();
    for (const uint32_t layer : {0u, 1u}) RETURN_IF_ERROR(ticket->Wait(layer));
    EXPECT_TRUE(lookup.Right(0) && lookup.Right(1));
    return OkStatus();
  }
  // Lookups one after the other; the first error.
  Status AskMany(int count) {
    for (int i = 0; i < count; ++i) RETURN_IF_ERROR(Ask(static_cast<uint64_t>(i)));
    return OkStatus();
  }
  std::vector<uint64_t> RowsFetched() const {
    std::vector<uint64_t> rows;
    for (const SourceStats::Node& node : client_->stats().nodes) rows.push_back(node.rows_fetched);
    return rows;
  }

  FakeCluster cluster_{3, GetParam(), 2};
  std::unique_ptr<LookupClient> client_;
};
INSTANTIATE_TEST_SUITE_P(Transports, LookupReplicas, testing::Bool(),
                         [](const auto& of) { return of.param ? "ucx" : "loopback"; });

TEST_P(LookupReplicas, OwnersShareTheLookups) {
  Connect();
  ASSERT_TRUE(AskMany(60).ok());
  const SourceStats stats = client_->stats();
  uint64_t fetched = 0;
  for (const SourceStats::Node& node : stats.nodes) {
    fetched += node.rows_fetched;
    EXPECT_GT(node.rows_fetched, stats.rows_distinct / 6) << node.name;
  }
  EXPECT_GE(fetched, stats.rows_distinct);
  EXPECT_TRUE(stats.served.ok());
  EXPECT_EQ(stats.failovers, 0u);
}

TEST_P(LookupReplicas, ALostNodeCostsNoLookup) {
  Connect();
  std::atomic<bool> ends = false;
  std::atomic<int> asked = 0;
  Status first_error;
  std::thread load([&] {
    for (uint64_t seed = 0; !ends && first_error.ok(); ++seed) {
      first_error = Ask(seed);
      ++asked;
    }
  });
  const auto go_on = [&] {
    const int before = asked;
    return Eventually([&] { return asked > before + 50 || ends; });
  };
  for (size_t node = 0; node < 3; ++node) {
    EXPECT_TRUE(go_on());
    cluster_.StopNode(node);
    EXPECT_TRUE(Eventually([&] { return !client_->stats().nodes[node].status.ok(); }));
    EXPECT_TRUE(client_->stats().served.ok()) << "the others have its rows";
    EXPECT_TRUE(go_on());
    cluster_.RestartNode(node, cluster_.BehaviourOf(node));
    EXPECT_TRUE(Eventually([&] { return client_->stats().nodes[node].status.ok(); }));
  }
  ends = true;
  load.join();
  EXPECT_TRUE(first_error.ok()) << first_error.message();
  EXPECT_EQ(client_->stats().reconnects, 3u);
}

TEST_P(LookupReplicas, ANodeThatStandsStillCostsNoLookup) {
  Connect();
  ASSERT_TRUE(AskMany(10).ok());
  cluster_.nodes[1]->Stop();
  ASSERT_TRUE(AskMany(200).ok());
  const SourceStats stats = client_->stats();
  EXPECT_GT(stats.hedges_won, 0u);
  EXPECT_GE(stats.hedges_sent, stats.hedges_won);
  EXPECT_TRUE(stats.served.ok());
  cluster_.nodes[1]->Continue();
  const uint64_t before = RowsFetched()[1];
  EXPECT_TRUE(Eventually([&] {
    EXPECT_TRUE(Ask(1).ok());
    return RowsFetched()[1] > before + 1000;
  })) << "it is asked again";
}

TEST_P(LookupReplicas, AnswersThatAreLostAreAskedForElsewhere) {
  Connect();
  cluster_.nodes[2]->LoseAnswers(true);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const Status status = Ask(seed, Clock::Real().Now() + std::chrono::seconds(5));
    EXPECT_TRUE(status.ok()) << status.message();
  }
}

TEST_P(LookupReplicas, ADamagedRowComesFromItsOtherOwner) {
  Connect();
  cluster_.nodes[0]->DamageRows();
  ASSERT_TRUE(AskMany(20).ok());
  EXPECT_GT(client_->stats().failovers, 0u);
}

TEST_P(LookupReplicas, ANodeThatRefusesIsReplaced) {
  for (size_t i = 0; i < 3; ++i) {
    auto behaviour = cluster_.BehaviourOf(i);
    cluster_.StartNode(behaviour);
  }
  client_ = cluster_.MustConnect();
  cluster_.StopNode(1);
  auto refuses = cluster_.BehaviourOf(1);
  refuses.refuse_lookups = ResourceExhausted("too busy");
  cluster_.RestartNode(1, refuses);
  ASSERT_TRUE(AskMany(20).ok());
  EXPECT_TRUE(client_->stats().served.ok());
}

TEST_P(LookupReplicas, ANodeThatShutsDownIsLeftAtOnce) {
  for (const size_t i : {0u, 1u, 2u}) {
    auto behaviour = cluster_.BehaviourOf(i);
    // As a node that was told to leave just after it had welcomed the client.
    if (i == 2) behaviour.refuse_lookups = Cancelled("this memory node is shutting down");
    cluster_.StartNode(behaviour);
  }
  cluster_.options.check_rows = false;  // the proof needs rows of each
  cluster_.options.path = Path::kGather;
  client_ = cluster_.MustConnect();
  ASSERT_TRUE(AskMany(10).ok());
  EXPECT_TRUE(Eventually([&] { return cluster_.nodes[2]->hellos() > 1; })) << "it is dialled again";
  EXPECT_LE(client_->stats().failovers, 16u) << "no request is sent there any more";
}

TEST_P(LookupReplicas, RowsThatHaveLostAllOwnersFailWithTheirNames) {
  Connect();
  cluster_.StopNode(0);
  cluster_.StopNode(1);
  ASSERT_TRUE(Eventually([&] { return !client_->stats().served.ok(); }));
  const Status served = client_->stats().served;
  EXPECT_THAT(served.message(), AllOf(HasSubstr("memory node m0 ("), HasSubstr("m1 (")));
  const Status lost = Ask(1);
  EXPECT_EQ(lost.code(), Code::kUnavailable) << lost.message();
  cluster_.RestartNode(1, cluster_.BehaviourOf(1));
  EXPECT_TRUE(Eventually([&] { return Ask(2).ok(); }));
  EXPECT_TRUE(client_->stats().served.ok());
}

TEST_P(LookupReplicas, ANodeMayBeAwayWhenTheClientConnects) {
  cluster_.StartAll();
  for (size_t away = 0; away < 3; ++away) {
    cluster_.StopNode(away);
    client_ = cluster_.MustConnect();
    ASSERT_TRUE(AskMany(5).ok());
    const Status status = client_->stats().nodes[away].status;
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr(cluster_.options.memnodes[away]), HasSubstr("dialled again")));
    cluster_.RestartNode(away, cluster_.BehaviourOf(away));
    EXPECT_TRUE(Eventually([&] { return client_->stats().nodes[away].status.ok(); }))
        << client_->stats().nodes[away].status.message();
    ASSERT_TRUE(AskMany(5).ok());
  }
}

TEST_P(LookupReplicas, WithoutAnyOwnerOfSomeRowsTheClientDoesNotConnect) {
  cluster_.StartAll();
  cluster_.StopNode(0);
  cluster_.StopNode(2);
  const auto client = cluster_.Connect();
  ASSERT_EQ(client.status().code(), Code::kUnavailable) << client.status().message();
  EXPECT_THAT(client.status().message(),
              AllOf(HasSubstr("no owner of partition"), HasSubstr(cluster_.options.memnodes[0]),
                    HasSubstr(cluster_.options.memnodes[2])));
}

TEST_P(LookupReplicas, MembersThatWereAwayAreFoundByTheirNames) {
  FakeCluster five(5, GetParam(), 3);
  five.StartAll();
  five.StopNode(1);
  five.StopNode(3);
  client_ = five.MustConnect();
  ASSERT_TRUE(AskMany(5).ok());
  // Each at the other's address: an operator moved them.
  std::swap(five.options.memnodes[1], five.options.memnodes[3]);
  five.RestartNode(1, five.BehaviourOf(1));
  five.RestartNode(3, five.BehaviourOf(3));
  for (const size_t node : {1u, 3u}) {
    EXPECT_TRUE(Eventually([&] { return client_->stats().nodes[node].status.ok(); }))
        << client_->stats().nodes[node].status.message();
  }
  ASSERT_TRUE(AskMany(20).ok());
  client_.reset();
}

}  // namespace
}  // namespace engram::client
