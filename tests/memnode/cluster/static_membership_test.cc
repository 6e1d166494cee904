// The membership without a keeper: what a member keeps, and what wins when it starts again.
#include "memnode/cluster/static_membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "memnode/store/rocks_store.h"
#include "tests/memnode/cluster/states.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/eventually.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::Eventually;

const table::ClusterMap kSettings = MapOf({"m0", "m1"});

std::unique_ptr<StaticMembership> Opened(RowStore* store, const table::ClusterMap& settings) {
  auto opened = StaticMembership::Open(store, settings);
  CHECK(opened.ok()) << opened.status().message();
  return *std::move(opened);
}

std::string RecordOf(RowStore& store) {
  return (*store.ReadRecords(kClusterStateRecord))[std::string(kClusterStateRecord)];
}

void PutRecord(RowStore& store, const std::string& text) {
  const RecordChange change = {std::string(kClusterStateRecord), text};
  ASSERT_TRUE(store.WriteRecords({&change, 1}).ok());
}

TEST(StaticMembership, HasTheStateOfTheSettingsUntilAProposal) {
  MemoryStore store;
  for (RowStore* const kept : {static_cast<RowStore*>(nullptr), static_cast<RowStore*>(&store)}) {
    const auto membership = Opened(kept, kSettings);
    const ClusterState state = *membership->Read();
    EXPECT_TRUE(state.current == kSettings);
    EXPECT_EQ(state.revision, 0u);
    EXPECT_EQ(state.cluster, "");
    EXPECT_FALSE(state.next.has_value());
    EXPECT_FALSE(membership->shared());
    EXPECT_TRUE(membership->health().ok());
    const ClusterState adding = Adding(state, "m2");
    ASSERT_TRUE(membership->Propose(adding).ok());
    EXPECT_TRUE(*membership->Read() == adding);
  }
  // A list that was never changed by a tool may be corrected in the settings.
  MemoryStore other;
  Opened(&other, kSettings);
  EXPECT_TRUE(Opened(&other, MapOf({"m7"}))->Read()->current == MapOf({"m7"}));
}

TEST(StaticMembership, KeepsWhatItTookOverARestart) {
  const std::string folder = FreshFolder("static_membership");
  ClusterState adding;
  {
    auto store = OpenRocksStore(folder + "/store");
    ASSERT_TRUE(store.ok()) << store.status().message();
    const auto membership = Opened(store->get(), kSettings);
    adding = Adding(*membership->Read(), "m2");
    ASSERT_TRUE(membership->Propose(adding).ok());
  }
  auto store = OpenRocksStore(folder + "/store");
  ASSERT_TRUE(store.ok()) << store.status().message();
  const auto membership = Opened(store->get(), kSettings);
  EXPECT_TRUE(*membership->Read() == adding);
  EXPECT_TRUE(membership->Propose(Committed(adding)).ok());
}

TEST(StaticMembership, TakesOneStepAtATimeAndARepetition) {
  MemoryStore store;
  const auto membership = Opened(&store, kSettings);
  const ClusterState before = *membership->Read();
  const ClusterState adding = Adding(before, "m2");
  EXPECT_EQ(membership->Propose(Committed(adding)).code(), Code::kFailedPrecondition);
  EXPECT_TRUE(*membership->Read() == before);
  ASSERT_TRUE(membership->Propose(adding).ok());
  const std::string record = RecordOf(store);
  EXPECT_TRUE(membership->Propose(adding).ok());
  const Status other = membership->Propose(Adding(before, "m3"));
  EXPECT_EQ(other.code(), Code::kFailedPrecondition);
  EXPECT_THAT(other.message(), HasSubstr("add m2"));
  EXPECT_TRUE(*membership->Read() == adding);
  EXPECT_EQ(RecordOf(store), record);
  ASSERT_TRUE(membership->Propose(Committed(adding)).ok());
  // A proposal that could not be read at the next start is not kept.
  ClusterState unreadable = Adding(Committed(adding), "m3");
  unreadable.change = std::string(kChangeTextBytesMax + 1, 'x');
  EXPECT_EQ(membership->Propose(unreadable).code(), Code::kInvalidArgument);
  EXPECT_TRUE(*membership->Read() == Committed(adding));
}

TEST(StaticMembership, DoesNotTakeWhatItCannotKeep) {
  MemoryStore store;
  const auto membership = Opened(&store, kSettings);
  const ClusterState before = *membership->Read();
  store.FailNextRecord("cluster/", ResourceExhausted("the disk is full"));
  const Status full = membership->Propose(Adding(before, "m2"));
  EXPECT_EQ(full.code(), Code::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("the disk is full"));
  EXPECT_TRUE(*membership->Read() == before);
  EXPECT_TRUE(membership->Propose(Adding(before, "m2")).ok());
}

// A store whose record is of a committed change: epoch 2, members m0, m1, m2.
void FillCommitted(RowStore& store) {
  const auto membership = Opened(&store, kSettings);
  ASSERT_TRUE(membership->Propose(Adding(*membership->Read(), "m2")).ok());
  ASSERT_TRUE(membership->Propose(Committed(*membership->Read())).ok());
}

TEST(StaticMembership, RecordWinsOverSettingsOfAnOlderEpoch) {
  MemoryStore store;
  FillCommitted(store);
  const auto membership = Opened(&store, kSettings);
  EXPECT_EQ(membership->Read()->current.epoch, 2u);
  EXPECT_THAT(membership->Read()->current.members, ElementsAre("m0", "m1", "m2"));
  EXPECT_EQ(membership->Read()->revision, 2u);
}

TEST(StaticMembership, SettingsOfTheSameEpochMustAgree) {
  MemoryStore store;
  FillCommitted(store);
  const std::string record = RecordOf(store);
  table::ClusterMap same = MapOf({"m0", "m1", "m2"}, 2);
  EXPECT_TRUE(StaticMembership::Open(&store, same).ok());
  same.addresses = {"h0:1", "h1:1", "h2:1"};
  EXPECT_TRUE(StaticMembership::Open(&store, same).ok());

  table::ClusterMap replicas = same;
  replicas.replicas = 2;
  table::ClusterMap zones = same;
  zones.zones = {"a", "b", "c"};
  table::ClusterMap weights = same;
  weights.weights = {1, 2, 3};
  for (const table::ClusterMap& other :
       {MapOf({"m0", "m1"}, 2), MapOf({"m0", "m1", "m3"}, 2), replicas, zones, weights}) {
    const Status status = StaticMembership::Open(&store, other).status();
    EXPECT_EQ(status.code(), Code::kFailedPrecondition);
    EXPECT_THAT(status.message(), HasSubstr("raise cluster.epoch"));
    EXPECT_THAT(status.message(), HasSubstr("cluster.members"));
  }
  EXPECT_EQ(RecordOf(store), record);
}

TEST(StaticMembership, SettingsOfANewerEpochOverrideTheRecord) {
  MemoryStore store;
  FillCommitted(store);
  const table::ClusterMap forced = MapOf({"m0", "m5"}, 3);
  const auto membership = Opened(&store, forced);
  EXPECT_TRUE(membership->Read()->current == forced);
  EXPECT_EQ(membership->Read()->revision, 0u);
  EXPECT_EQ(membership->Read()->cluster, "");
  // For good: older settings do not bring the old record back.
  EXPECT_TRUE(Opened(&store, kSettings)->Read()->current == forced);

  MemoryStore full;
  FillCommitted(full);
  const std::string record = RecordOf(full);
  full.FailNextRecord("cluster/", ResourceExhausted("the disk is full"));
  EXPECT_EQ(StaticMembership::Open(&full, forced).status().code(), Code::kResourceExhausted);
  EXPECT_EQ(RecordOf(full), record);
}

TEST(StaticMembership, ADamagedRecordIsAnErrorAndStays) {
  for (const char* text : {"", "{", "[]", "null", "{}", "{\"cluster\":\"a\",\"revision\":\"1\"}"}) {
    MemoryStore store;
    PutRecord(store, text);
    for (const uint32_t epoch : {1u, 9u}) {
      const Status status = StaticMembership::Open(&store, MapOf({"m0"}, epoch)).status();
      EXPECT_EQ(status.code(), Code::kDataLoss) << text;
      EXPECT_THAT(status.message(), HasSubstr("record cluster/state")) << text;
    }
    EXPECT_EQ(RecordOf(store), text);
  }
}

TEST(StaticMembership, TellsTheStateInForceAndNewerOnesOnItsThread) {
  const auto membership = Opened(nullptr, kSettings);
  const ClusterState adding = Adding(*membership->Read(), "m2");
  std::mutex mutex;
  std::vector<uint64_t> told;
  const auto last = [&] {
    const std::lock_guard lock(mutex);
    return told.empty() ? UINT64_MAX : told.back();
  };
  bool held = true;
  std::condition_variable changed;
  ASSERT_TRUE(membership
                  ->Watch([&](const ClusterState& state) {
                    std::unique_lock lock(mutex);
                    told.push_back(state.revision);
                    changed.wait(lock, [&] { return !held; });
                  })
                  .ok());
  ASSERT_TRUE(Eventually([&] { return last() == 0; }));
  // While the receiver is busy states pile up; the newest is told, and proposals do not wait.
  ASSERT_TRUE(membership->Propose(adding).ok());
  ASSERT_TRUE(membership->Propose(Committed(adding)).ok());
  ASSERT_TRUE(membership->Propose(Adding(Committed(adding), "m3")).ok());
  {
    const std::lock_guard lock(mutex);
    held = false;
  }
  changed.notify_all();
  EXPECT_TRUE(Eventually([&] { return last() == 3; }));
  EXPECT_TRUE(membership->Propose(Committed(*membership->Read())).ok());
  EXPECT_TRUE(Eventually([&] { return last() == 4; }));
  const std::lock_guard lock(mutex);
  EXPECT_THAT(told, ElementsAre(0, 3, 4));
}

TEST(StaticMembership, KnowsWhichMembersAreReadyForTheNewestChange) {
  const auto membership = Opened(nullptr, kSettings);
  EXPECT_THAT(*membership->Ready(1), IsEmpty());
  ASSERT_TRUE(membership->TellReady(1, "m1").ok());
  ASSERT_TRUE(membership->TellReady(1, "m0").ok());
  ASSERT_TRUE(membership->TellReady(1, "m1").ok());
  EXPECT_THAT(*membership->Ready(1), ElementsAre("m0", "m1"));
  EXPECT_THAT(*membership->Ready(2), IsEmpty());
  ASSERT_TRUE(membership->TellReady(3, "m2").ok());
  ASSERT_TRUE(membership->TellReady(1, "m2").ok());
  EXPECT_THAT(*membership->Ready(1), IsEmpty());
  EXPECT_THAT(*membership->Ready(3), ElementsAre("m2"));
}

}  // namespace
}  // namespace engram::memnode
