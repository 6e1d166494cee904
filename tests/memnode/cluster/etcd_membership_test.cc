// The membership that an etcd keeps, against a real one: proposals, watching, and everything that
// may happen to etcd meanwhile.
#include "memnode/cluster/etcd_membership.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <thread>

#include "tests/memnode/cluster/etcd_fixture.h"
#include "tests/memnode/cluster/states.h"

namespace engram::memnode {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using testing_support::Eventually;

constexpr char kStateKey[] = "/engram/state";

std::string TextOf(const ClusterState& state) { return json::serialize(ToJson(state)); }

TEST_F(EtcdMembershipTest, KeepsOneStateForAll) {
  StartEtcd();
  const auto tool = Member();
  const auto member = Member();
  EXPECT_TRUE(member->shared());
  EXPECT_FALSE(member->health().ok());
  EXPECT_EQ(member->Read().status().code(), Code::kNotFound);
  EXPECT_TRUE(member->health().ok());

  ClusterState later = FirstState();
  later.revision = 2;
  EXPECT_EQ(tool->Propose(later).code(), Code::kFailedPrecondition);
  EXPECT_EQ(tool->Propose(FirstState("")).code(), Code::kFailedPrecondition);
  EXPECT_EQ(member->Read().status().code(), Code::kNotFound);
  ASSERT_TRUE(tool->Propose(FirstState()).ok());
  EXPECT_TRUE(*member->Read() == FirstState());

  const ClusterState adding = Adding(FirstState(), "m2");
  EXPECT_EQ(member->Propose(Committed(adding)).code(), Code::kFailedPrecondition);
  ASSERT_TRUE(member->Propose(adding).ok());
  EXPECT_TRUE(tool->Propose(adding).ok()) << "the state in force is no other proposal";
  const Status other = tool->Propose(Adding(FirstState(), "m3"));
  EXPECT_EQ(other.code(), Code::kFailedPrecondition);
  EXPECT_THAT(other.message(), HasSubstr("add m2"));
  EXPECT_TRUE(*tool->Read() == adding);
  ASSERT_TRUE(tool->Propose(Committed(adding)).ok());
  EXPECT_TRUE(*member->Read() == Committed(adding));
}

TEST_F(EtcdMembershipTest, CountsTheMembersThatAreReadyForAChange) {
  StartEtcd();
  const auto member = Member();
  const ClusterState adding = Adding(FirstState(), "m2");
  ASSERT_TRUE(member->Propose(FirstState()).ok());
  ASSERT_TRUE(member->Propose(adding).ok());
  EXPECT_THAT(*member->Ready(2), IsEmpty());
  for (const char* name : {"m2", "m0", "m2", "a/strange name"}) {
    ASSERT_TRUE(member->TellReady(2, name).ok());
  }
  ASSERT_TRUE(member->TellReady(22, "m9").ok());
  EXPECT_THAT(*Member()->Ready(2), UnorderedElementsAre("m2", "m0", "a/strange name"));
  ASSERT_TRUE(member->Propose(Committed(adding)).ok());
  EXPECT_THAT(*member->Ready(2), IsEmpty());
  EXPECT_THAT(*member->Ready(22), IsEmpty());
}

TEST_F(EtcdMembershipTest, OfTwoProposalsAtOnceExactlyOneWins) {
  StartEtcd();
  const std::unique_ptr<EtcdMembership> members[] = {Member(), Member()};
  ClusterState state;  // none yet: the first round creates it
  for (int round = 0; round < 20; ++round) {
    ClusterState proposals[2];
    for (int i = 0; i < 2; ++i) {
      const std::string name = fmt::format("x{}{}", round, i);
      proposals[i] = round == 0 ? FirstState("cluster" + name) : Adding(state, name);
    }
    Status outcomes[2];
    std::barrier begin(2);
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] {
          begin.arrive_and_wait();
          outcomes[i] = members[i]->Propose(proposals[i]);
        });
      }
    }
    const int winner = outcomes[0].ok() ? 0 : 1;
    ASSERT_TRUE(outcomes[winner].ok()) << outcomes[winner].message();
    EXPECT_EQ(outcomes[1 - winner].code(), Code::kFailedPrecondition)
        << outcomes[1 - winner].message();
    // Both see the winner's, also the member whose own cluster id lost.
    for (const auto& member : members) EXPECT_TRUE(*member->Read() == proposals[winner]);
    state = proposals[winner];
    if (!state.next) continue;
    state = Committed(state);
    ASSERT_TRUE(members[0]->Propose(state).ok());
  }
}

TEST_F(EtcdMembershipTest, WatchTellsWhatIsThereAndWhatComes) {
  StartEtcd();
  Told early_told;
  Told late_told;
  const auto early = Member();
  ASSERT_TRUE(early->Watch(early_told.Take()).ok());
  ASSERT_TRUE(BecomesHealthy(*early));
  EXPECT_EQ(early_told.count(), 0u);
  const auto tool = Member();
  ClusterState state = FirstState();
  ASSERT_TRUE(tool->Propose(state).ok());
  EXPECT_TRUE(early_told.Awaits(state));

  const auto late = Member();
  ASSERT_TRUE(late->Watch(late_told.Take()).ok());
  EXPECT_TRUE(late_told.Awaits(state));
  for (int i = 2; i < 7; ++i) {
    for (const bool begins : {true, false}) {
      state = begins ? Adding(state, "m" + std::to_string(i)) : Committed(state);
      ASSERT_TRUE(tool->Propose(state).ok());
    }
  }
  EXPECT_TRUE(early_told.Awaits(state));
  EXPECT_TRUE(late_told.Awaits(state));
  EXPECT_TRUE(early->health().ok());
}

TEST_F(EtcdMembershipTest, GoesOnAfterEtcdWasRestarted) {
  StartEtcd();
  Told told;
  const auto member = Member();
  ASSERT_TRUE(member->Propose(FirstState()).ok());
  ASSERT_TRUE(member->Watch(told.Take()).ok());
  ASSERT_TRUE(told.Awaits(FirstState()));
  ASSERT_TRUE(BecomesHealthy(*member));

  etcd_->Kill(0);
  EXPECT_TRUE(BecomesUnhealthy(*member));
  const ClusterState adding = Adding(FirstState(), "m2");
  const Status lost = member->Propose(adding);
  EXPECT_EQ(lost.code(), Code::kUnavailable);
  EXPECT_THAT(lost.message(), HasSubstr("nothing was proposed"));
  EXPECT_THAT(lost.message(), HasSubstr(etcd_->address(0)));
  EXPECT_EQ(member->Read().status().code(), Code::kUnavailable);
  EXPECT_EQ(member->TellReady(2, "m0").code(), Code::kUnavailable);
  EXPECT_EQ(member->Ready(2).status().code(), Code::kUnavailable);
  EXPECT_EQ(told.count(), 1u);

  etcd_->Start(0);
  etcd_->AwaitAnswers(etcd_->Config());
  ASSERT_TRUE(Member()->Propose(adding).ok());
  EXPECT_TRUE(told.Awaits(adding));
  EXPECT_TRUE(BecomesHealthy(*member));
}

TEST_F(EtcdMembershipTest, EndsItsCallsWhileEtcdStandsStill) {
  StartEtcd();
  Told told;
  const auto member = Member();
  ASSERT_TRUE(member->Propose(FirstState()).ok());
  ASSERT_TRUE(member->Watch(told.Take()).ok());
  ASSERT_TRUE(told.Awaits(FirstState()));
  ASSERT_TRUE(BecomesHealthy(*member));

  etcd_->Stop(0);
  EXPECT_EQ(member->Read().status().code(), Code::kUnavailable);
  EXPECT_EQ(member->Propose(Adding(FirstState(), "m2")).code(), Code::kUnavailable);
  EXPECT_TRUE(BecomesUnhealthy(*member));
  EXPECT_EQ(member->health().code(), Code::kUnavailable);

  etcd_->Continue(0);
  EXPECT_TRUE(BecomesHealthy(*member));
  // A proposal that was cut off may still have been carried out; that one was not.
  const ClusterState adding = Adding(FirstState(), "m3");
  ASSERT_TRUE(member->Propose(adding).ok());
  EXPECT_TRUE(told.Awaits(adding));
}

TEST_F(EtcdMembershipTest, NeedsMostServersAndNoCertainOne) {
  StartEtcd(3);
  Told told;
  const auto member = Member();
  ClusterState state = FirstState();
  ASSERT_TRUE(member->Propose(state).ok());
  ASSERT_TRUE(member->Watch(told.Take()).ok());
  ASSERT_TRUE(told.Awaits(state));

  // One after the other dies and comes back, the leader too.
  for (size_t i = 0; i < 3; ++i) {
    etcd_->Kill(i);
    state = state.next ? Committed(state) : Adding(state, "n" + std::to_string(i));
    Status proposed;
    ASSERT_TRUE(Eventually([&] {
      proposed = member->Propose(state);  // repeated: what was carried out is the state in force
      return proposed.ok();
    })) << proposed.message();
    EXPECT_TRUE(told.Awaits(state));
    etcd_->Start(i);
    etcd_->AwaitAnswers(etcd_->Config());
  }

  etcd_->Kill(0);
  etcd_->Kill(1);
  EXPECT_TRUE(BecomesUnhealthy(*member));
  const ClusterState next = state.next ? Committed(state) : Adding(state, "m9");
  EXPECT_EQ(member->Propose(next).code(), Code::kUnavailable);
  EXPECT_EQ(member->Read().status().code(), Code::kUnavailable);
  etcd_->Start(0);
  Status proposed;
  EXPECT_TRUE(Eventually([&] {
    proposed = member->Propose(next);
    return proposed.ok();
  })) << proposed.message();
  EXPECT_TRUE(told.Awaits(next));
  EXPECT_TRUE(BecomesHealthy(*member));
}

TEST_F(EtcdMembershipTest, ReadsAgainWhatWasCompactedMeanwhile) {
  StartEtcd();
  const auto client = EtcdClient::Make(etcd_->Config());
  ASSERT_TRUE(client.ok());
  const auto tool = Member();
  ClusterState state = FirstState();
  ASSERT_TRUE(tool->Propose(state).ok());
  const int64_t old = (*client)->Get(kStateKey)->revision;
  Told told;
  const auto member = Member();
  ASSERT_TRUE(member->Watch(told.Take()).ok());
  ASSERT_TRUE(told.Awaits(state));
  etcd_->Kill(0);
  etcd_->Start(0);
  etcd_->AwaitAnswers(etcd_->Config());
  for (int i = 0; i < 4; ++i) {
    state = state.next ? Committed(state) : Adding(state, "n" + std::to_string(i));
    ASSERT_TRUE(tool->Propose(state).ok());
  }
  const int64_t now = (*client)->Get(kStateKey)->revision;
  ASSERT_TRUE(
      etcd_->Post(0, "/v3/kv/compaction", fmt::format("{{\"revision\":\"{}\"}}", now)).ok());
  EXPECT_TRUE(told.Awaits(state));

  const auto watch = (*client)->Watch(kStateKey, old);
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  const Status compacted = (*watch)->Next(kEtcdTimeout).status();
  EXPECT_EQ(compacted.code(), Code::kOutOfRange);
  EXPECT_THAT(compacted.message(), HasSubstr(fmt::format("revision {}", now)));
}

TEST_F(EtcdMembershipTest, DoesNotTellWhatItCannotRead) {
  StartEtcd();
  Told told;
  const auto member = Member();
  ASSERT_TRUE(member->Propose(FirstState()).ok());
  ASSERT_TRUE(member->Watch(told.Take()).ok());
  ASSERT_TRUE(told.Awaits(FirstState()));
  const ClusterState adding = Adding(FirstState(), "m2");
  const auto client = EtcdClient::Make(etcd_->Config());
  for (const std::string& garbage :
       {std::string("{"), std::string("\xff\x00", 2), std::string(), std::string("[]"),
        std::string("{}"), std::string(1 << 20, '['), TextOf(ClusterState())}) {
    ASSERT_TRUE(etcd_->Put(0, kStateKey, garbage).ok());
    EXPECT_TRUE(Eventually([&] { return member->health().code() == Code::kDataLoss; }));
    EXPECT_EQ(member->Read().status().code(), Code::kDataLoss);
    EXPECT_THAT(member->Read().status().message(), HasSubstr(kStateKey));
    EXPECT_EQ(member->Propose(adding).code(), Code::kDataLoss);
    EXPECT_EQ((*client)->Get(kStateKey)->values.at(0).bytes, garbage) << "nothing is overwritten";
    ASSERT_TRUE(etcd_->Put(0, kStateKey, TextOf(FirstState())).ok());
    EXPECT_TRUE(BecomesHealthy(*member));
  }
  EXPECT_EQ(told.count(), 1u);
  ASSERT_TRUE(member->Propose(adding).ok());
  EXPECT_TRUE(told.Awaits(adding));
}

TEST_F(EtcdMembershipTest, RefusesAnotherClusterAndAnOlderState) {
  StartEtcd();
  Told told;
  const auto member = Member();
  const ClusterState adding = Adding(FirstState(), "m2");
  ASSERT_TRUE(member->Propose(FirstState()).ok());
  ASSERT_TRUE(member->Propose(adding).ok());
  ASSERT_TRUE(member->Watch(told.Take()).ok());
  ASSERT_TRUE(told.Awaits(adding));

  ClusterState foreign = FirstState("beef");
  foreign.revision = 9;
  ASSERT_TRUE(etcd_->Put(0, kStateKey, TextOf(foreign)).ok());
  EXPECT_TRUE(Eventually([&] { return member->health().code() == Code::kFailedPrecondition; }));
  EXPECT_THAT(member->health().message(), HasSubstr("cluster beef"));
  EXPECT_EQ(member->Read().status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(member->Propose(Committed(adding)).code(), Code::kFailedPrecondition);

  ASSERT_TRUE(etcd_->Put(0, kStateKey, TextOf(FirstState())).ok());
  EXPECT_TRUE(Eventually([&] {
    return member->health().message().find("after revision 2 was in force") != std::string::npos;
  })) << member->health().message();

  ASSERT_TRUE(etcd_->Remove(0, kStateKey).ok());
  EXPECT_TRUE(Eventually([&] {
    return member->health().message().find("was removed from etcd") != std::string::npos;
  })) << member->health().message();
  EXPECT_EQ(member->Read().status().code(), Code::kNotFound);
  EXPECT_EQ(member->Propose(FirstState("beef")).code(), Code::kFailedPrecondition);

  EXPECT_EQ(told.count(), 1u);
  ASSERT_TRUE(etcd_->Put(0, kStateKey, TextOf(Committed(adding))).ok());
  EXPECT_TRUE(told.Awaits(Committed(adding)));
  EXPECT_TRUE(BecomesHealthy(*member));
}

}  // namespace
}  // namespace engram::memnode
