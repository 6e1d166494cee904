// A member that follows the cluster's state, over a follower that does as the test says.
#include "memnode/cluster/cluster_member.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memnode/cluster/static_membership.h"
#include "tests/memnode/cluster/states.h"
#include "tests/support/eventually.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;
using testing_support::Eventually;

class FakeFollower final : public MapFollower {
 public:
  Status Prepare(const table::ClusterMap&, const table::ClusterMap& next,
                 const std::atomic<bool>& cancel) override {
    ++prepares;
    while (stuck && !cancel) std::this_thread::yield();
    if (cancel) {
      ++cancelled;
      return Cancelled("stopped");
    }
    const std::lock_guard lock(mutex);
    if (!fails.ok()) return std::exchange(fails, OkStatus());
    prepared = next;
    return OkStatus();
  }
  Status GoOver(const table::ClusterMap& map) override {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(prepared, map) << "not prepared";
    served = map;
    return OkStatus();
  }
  void Forget() override {
    const std::lock_guard lock(mutex);
    prepared.reset();
  }
  void EndOldSessions() override { ++ended; }
  uint32_t epoch() {
    const std::lock_guard lock(mutex);
    return served ? served->epoch : 0;
  }

  std::atomic<int> prepares = 0, cancelled = 0, ended = 0;
  std::atomic<bool> stuck = false;
  std::mutex mutex;
  Status fails;
  std::optional<table::ClusterMap> prepared, served;
};

class ClusterMemberTest : public testing::Test {
 protected:
  void Start(ClusterMember::Options options = {}) {
    membership_ = *StaticMembership::Open(nullptr, MapOf({"m0", "m1"}));
    options.member = "m0";
    member_ =
        *ClusterMember::Start(*membership_, follower_, std::move(options), *membership_->Read());
  }
  void TearDown() override {
    if (member_ != nullptr) member_->Stop();
    membership_.reset();
  }
  ClusterState Begun() const { return Adding(member_->view().state, "m2"); }
  bool Ready(uint64_t revision) const {
    return Eventually([&] { return member_->view().ready == revision; });
  }

  FakeFollower follower_;
  std::unique_ptr<StaticMembership> membership_;
  std::unique_ptr<ClusterMember> member_;
};

TEST_F(ClusterMemberTest, PreparesSaysSoAndGoesOver) {
  Start({.member = "m0", .linger = Nanos::zero()});
  const ClusterState begun = Begun();
  ASSERT_TRUE(member_->Propose(begun).ok());
  ASSERT_TRUE(Ready(begun.revision));
  EXPECT_EQ(member_->view().epoch, 1u) << "reads go on by the map before";
  EXPECT_EQ(follower_.epoch(), 0u);
  EXPECT_THAT(*membership_->Ready(begun.revision), testing::ElementsAre("m0"));
  ASSERT_TRUE(member_->Propose(Committed(begun)).ok());
  EXPECT_TRUE(Eventually([&] { return member_->view().epoch == 2; }));
  EXPECT_EQ(follower_.epoch(), 2u);
  EXPECT_EQ(follower_.prepares, 1);
  EXPECT_TRUE(Eventually([&] { return follower_.ended == 1; })) << "sessions of epoch 1";
}

TEST_F(ClusterMemberTest, ACancelledChangeEndsWhatIsUnderWay) {
  Start();
  follower_.stuck = true;
  const ClusterState begun = Begun();
  ASSERT_TRUE(member_->Propose(begun).ok());
  ASSERT_TRUE(Eventually([&] { return follower_.prepares == 1; }));
  ASSERT_TRUE(member_->Propose(*Cancel(begun)).ok());
  EXPECT_TRUE(Eventually([&] { return follower_.cancelled == 1; }));
  EXPECT_EQ(member_->view().epoch, 1u);
  follower_.stuck = false;
  const ClusterState again = Begun();
  ASSERT_TRUE(member_->Propose(again).ok());
  EXPECT_TRUE(Ready(again.revision));
}

TEST_F(ClusterMemberTest, AFailedStepIsToldAndTriedAgain) {
  Start();
  follower_.fails = Unavailable("the others are away");
  const ClusterState begun = Begun();
  ASSERT_TRUE(member_->Propose(begun).ok());
  EXPECT_TRUE(Eventually(
      [&] { return member_->view().problem.find("others are away") != std::string::npos; }));
  EXPECT_TRUE(Ready(begun.revision));
  EXPECT_EQ(member_->view().problem, "");
  EXPECT_EQ(follower_.prepares, 2);
}

// An owner that shuts down answers so: the change was not given up.
TEST_F(ClusterMemberTest, AStepThatOthersCancelIsToldToo) {
  Start();
  follower_.fails = Cancelled("m1 is shutting down");
  const ClusterState begun = Begun();
  ASSERT_TRUE(member_->Propose(begun).ok());
  EXPECT_TRUE(Eventually(
      [&] { return member_->view().problem.find("shutting down") != std::string::npos; }));
  EXPECT_TRUE(Ready(begun.revision));
}

TEST_F(ClusterMemberTest, ACommitThatComesBeforeItIsReadyIsFollowedOnceItIs) {
  Start();
  follower_.stuck = true;
  const ClusterState begun = Begun();
  ASSERT_TRUE(member_->Propose(begun).ok());
  ASSERT_TRUE(Eventually([&] { return follower_.prepares == 1; }));
  ASSERT_TRUE(member_->Propose(Committed(begun)).ok());
  EXPECT_EQ(follower_.cancelled, 0) << "it is wanted yet";
  follower_.stuck = false;
  EXPECT_TRUE(Eventually([&] { return member_->view().epoch == 2; }));
}

TEST_F(ClusterMemberTest, AChangeIsRefusedWhereItMayNotBegin) {
  Start({.member = "m0", .may_begin = [] { return FailedPrecondition("an import is under way"); }});
  const auto refused = member_->Propose(Begun());
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.status().message(), HasSubstr("import"));
  EXPECT_FALSE(member_->view().state.next.has_value());
}

TEST_F(ClusterMemberTest, AStateThatGoesBackIsRefused) {
  Start();
  const ClusterState begun = Begun();
  ASSERT_TRUE(member_->Propose(begun).ok());
  const ClusterState committed = Committed(begun);
  ASSERT_TRUE(member_->Propose(committed).ok());
  EXPECT_FALSE(member_->Propose(begun).ok());
  ClusterState older = committed;
  older.revision += 7;
  older.current.epoch = 1;
  EXPECT_EQ(member_->Propose(older).status().code(), Code::kFailedPrecondition);
  ClusterState others = committed;
  others.cluster = "another";
  others.revision += 1;
  EXPECT_EQ(member_->Propose(others).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(member_->view().state, committed);
}

// One that is added, or was away, has missed proposals.
TEST_F(ClusterMemberTest, TakesOverTheStateOfTheClusterThatItMissed) {
  Start();
  ClusterState far = FirstState("beef");
  far.revision = 12;
  far.current.epoch = 5;
  far.next = MapOf({"m0", "m1", "m2"}, 6);
  far.change = "add m2";
  ASSERT_TRUE(member_->Propose(far).ok());
  EXPECT_TRUE(Eventually([&] { return member_->view().epoch == 5; }));
  EXPECT_TRUE(Ready(12));
}

}  // namespace
}  // namespace engram::memnode
