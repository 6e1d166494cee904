// What a client knows of its nodes without being asked for rows, and what it spares its callers.
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
TimePoint Shortly() { return Clock::Real().Now() + std::chrono::milliseconds(100); }

class LookupWatch : public testing::Test {
 protected:
  void Connect(uint32_t probe_timeout_ms) {
    cluster_.options.probe_timeout_ms = probe_timeout_ms;
    cluster_.StartAll();
    client_ = cluster_.MustConnect();
    victim_ = cluster_.nodes[1]->transport_address();
  }
  Status StatusOf(size_t node) const { return client_->stats().nodes[node].status; }
  bool AwaitDown() {
    return Eventually([&] { return !StatusOf(1).ok(); });
  }
  bool AwaitUp() {
    return Eventually([&] { return StatusOf(1).ok(); });
  }
  Status Ask(TimePoint deadline) {
    Lookup lookup(3, 200);
    auto ticket = client_->Submit(lookup.Layers(), deadline);
    return ticket.ok() ? ticket->Wait(1) : ticket.status();
  }

  FakeCluster cluster_{2};
  std::string victim_;
  std::unique_ptr<LookupClient> client_;
};

TEST_F(LookupWatch, AStoppedNodeThatGoesOnIsUpAgainWithoutTraffic) {
  Connect(30);
  EXPECT_TRUE(StatusOf(0).ok() && StatusOf(1).ok());
  cluster_.hub.Stop(victim_);
  ASSERT_TRUE(AwaitDown());
  EXPECT_THAT(StatusOf(1).message(),
              AllOf(HasSubstr("memory node m1 (127.0.0.1:"), HasSubstr("does not answer")));
  EXPECT_TRUE(StatusOf(0).ok());
  cluster_.hub.Resume(victim_);
  EXPECT_TRUE(AwaitUp());
  EXPECT_TRUE(Ask(Soon()).ok());
}

TEST_F(LookupWatch, AKilledNodeIsNoticedWithoutTraffic) {
  Connect(60'000);
  cluster_.hub.Kill(victim_);
  ASSERT_TRUE(AwaitDown());
  EXPECT_THAT(StatusOf(1).message(), AllOf(HasSubstr("memory node m1 ("), HasSubstr("is gone"),
                                           HasSubstr("dialled again")));
}

TEST_F(LookupWatch, ANodeThatMissedADeadlineIsSkippedUntilItAnswersAProbe) {
  Connect(60'000);  // the probes alone would not notice
  // The first probe is answered; then the lookup finds the node silent.
  ASSERT_TRUE(Eventually([&] { return cluster_.nodes[1]->lookups() > 0; }));
  cluster_.hub.Stop(victim_);
  EXPECT_EQ(Ask(Shortly()).code(), Code::kDeadlineExceeded);
  ASSERT_TRUE(AwaitDown());
  // Were it asked, this would wait for twenty seconds.
  const TimePoint before = Clock::Real().Now();
  const Status skipped = Ask(Soon());
  EXPECT_EQ(skipped.code(), Code::kUnavailable);
  EXPECT_THAT(skipped.message(), AllOf(HasSubstr("memory node m1 ("), HasSubstr("skipped")));
  EXPECT_LT(Clock::Real().Now() - before, std::chrono::seconds(15));
  cluster_.hub.Resume(victim_);
  ASSERT_TRUE(AwaitUp());
  EXPECT_TRUE(Ask(Soon()).ok());
}

TEST_F(LookupWatch, ANodeThatStopsEndsAtOnceWhatOtherLookupsWaitFor) {
  Connect(60'000);
  cluster_.hub.Stop(victim_);
  Lookup patient(4, 200), hasty(5, 200);
  auto waiting = client_->Submit(patient.Layers(), Soon());
  ASSERT_TRUE(waiting.ok());
  EXPECT_FALSE((*client_->Submit(hasty.Layers(), Shortly())).Wait(0).ok());
  const TimePoint before = Clock::Real().Now();
  EXPECT_THAT(waiting->Wait(0).message(), HasSubstr("skipped"));
  EXPECT_LT(Clock::Real().Now() - before, std::chrono::seconds(15));
}

TEST_F(LookupWatch, ProbesAreInNoCount) {
  Connect(1000);
  ASSERT_TRUE(Eventually([&] { return cluster_.nodes[1]->rows_asked() > 0; }));
  const uint64_t lookups = cluster_.nodes[1]->lookups();
  ASSERT_TRUE(Eventually([&] { return cluster_.nodes[1]->lookups() > lookups; }));
  const SourceStats stats = client_->stats();
  EXPECT_EQ(stats.rows_asked, 0u);
  for (const SourceStats::Node& node : stats.nodes) {
    EXPECT_EQ(node.requests, 0u);
    EXPECT_EQ(node.rows_fetched, 0u);
    EXPECT_EQ(node.rows_by_path[static_cast<size_t>(Path::kGather)], 0u);
  }
}

TEST_F(LookupWatch, ANodeThatRefusesLookupsIsDownWithItsOwnWords) {
  auto behaviour = cluster_.BehaviourOf(0);
  cluster_.options.probe_timeout_ms = 1000;
  cluster_.options.check_rows = false;  // or it would not be connected to
  behaviour.refuse_lookups = DataLoss("page 7 is damaged");
  cluster_.StartNode(behaviour);
  cluster_.StartNode(cluster_.BehaviourOf(1));
  client_ = cluster_.MustConnect();
  ASSERT_TRUE(Eventually([&] { return !StatusOf(0).ok(); }));
  EXPECT_THAT(StatusOf(0).message(), HasSubstr("page 7 is damaged"));
  EXPECT_TRUE(StatusOf(1).ok());
}

}  // namespace
}  // namespace engram::client
