// The catalog of versions: what is served, and that no failed write ever loses a published version
// or publishes half of one.
#include "memnode/node/version_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "memnode/tables/open_tables.h"
#include "tests/memnode/procedural_source.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

constexpr char kModel[] = "procedural";

class VersionManagerTest : public testing::Test, protected TableLoader {
 protected:
  VersionManagerTest() {
    for (const uint64_t seed : {1, 2, 3}) Import(seed);
    Open();
  }
  // Version n has rows of seed n.
  void Import(uint64_t seed) {
    const ProceduralSource source({.layout = "v41", .rows_scale = 0.00001, .seed = seed});
    const auto manifest = ImportProcedural(source, std::to_string(seed),
                                           {.epoch = 1, .members = {"m0"}}, "m0", store_);
    ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  }
  void Open(Nanos prepared_for = VersionManager::kPreparedFor) {
    versions_.reset();
    auto opened = VersionManager::Open(store_, *this, repairer_, prepared_for);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    versions_ = std::move(*opened);
  }
  Result<TablesPtr> Load(const Manifest& manifest, const std::atomic<bool>*) override {
    ++loads_;
    OpenTablesOptions options;
    options.map = manifest.map;
    options.member = "m0";
    options.arena.pages = PageBacking::kSmall;
    ASSIGN_OR_RETURN(TablesPtr tables, OpenTables(store_, manifest, options, registry_));
    return tables;
  }
  Status Publish(const std::string& version, uint64_t generation) {
    RETURN_IF_ERROR(versions_->Prepare(kModel, version, generation));
    RETURN_IF_ERROR(versions_->Promise(kModel, version, generation));
    return versions_->Commit(kModel, version, generation);
  }
  std::string Published() const {
    const auto found = versions_->Find(kModel, "");
    return found.ok() ? found->tables->identity().version : "none";
  }
  VersionInfo Info(const std::string& version) const {
    for (const VersionInfo& info : versions_->List()) {
      if (info.version == version) return info;
    }
    return {};
  }

  MemoryStore store_;
  obs::Metrics registry_;
  int loads_ = 0;
  LoadedTables none_;
  Repairer repairer_{store_, none_};
  std::unique_ptr<VersionManager> versions_;
};

TEST_F(VersionManagerTest, NothingIsServedUntilPublishedAndThenAlsoAfterARestart) {
  EXPECT_EQ(Published(), "none");
  EXPECT_THAT(versions_->Find(kModel, "").status().message(),
              HasSubstr("procedural version 1, procedural version 2"));
  ASSERT_TRUE(Publish("1", 1).ok());
  EXPECT_EQ(Published(), "1");
  EXPECT_EQ(versions_->Find(kModel, "1")->generation, 1u);
  Open();
  EXPECT_EQ(Published(), "1");
  ASSERT_TRUE(Publish("2", 2).ok());
  EXPECT_EQ(Published(), "2");
  EXPECT_FALSE(versions_->Find(kModel, "1").ok()) << "no session kept it";
  Open();
  EXPECT_EQ(Published(), "2");
}

TEST_F(VersionManagerTest, ReadersOfTheOldVersionFinishOnItAndItsMemoryGoesWithThem) {
  ASSERT_TRUE(Publish("1", 1).ok());
  TablesPtr reader = versions_->Find(kModel, "")->tables;
  ASSERT_TRUE(Publish("2", 2).ok());
  EXPECT_EQ(versions_->Find(kModel, "1")->tables, reader) << "asked for by name, while it is there";
  EXPECT_EQ(Info("1").readers, 1u);
  EXPECT_THAT(versions_->Drop(kModel, "1").message(), HasSubstr("sessions read it"));
  const std::weak_ptr<const ServedTables> memory = reader;
  reader.reset();
  EXPECT_TRUE(memory.expired());
  EXPECT_TRUE(versions_->Drop(kModel, "1").ok());
  EXPECT_EQ(versions_->Find(kModel, "1").status().code(), Code::kFailedPrecondition);
}

TEST_F(VersionManagerTest, PromisedIsServedByNameOnlyAndAbortEndsIt) {
  ASSERT_TRUE(Publish("1", 1).ok());
  ASSERT_TRUE(versions_->Prepare(kModel, "2", 2).ok());
  EXPECT_EQ(Published(), "1");
  EXPECT_EQ(versions_->Find(kModel, "2")->generation, 0u);
  ASSERT_TRUE(versions_->Promise(kModel, "2", 2).ok());
  Open();
  EXPECT_TRUE(versions_->Find(kModel, "2").ok()) << "a restart between the phases changes nothing";
  ASSERT_TRUE(versions_->Abort(kModel, "2", 2).ok());
  EXPECT_FALSE(versions_->Find(kModel, "2").ok());
  EXPECT_EQ(Published(), "1");
}

TEST_F(VersionManagerTest, CommitNeedsItsOwnPreparation) {
  EXPECT_EQ(versions_->Commit(kModel, "1", 1).code(), Code::kFailedPrecondition);
  ASSERT_TRUE(versions_->Prepare(kModel, "1", 3).ok());
  EXPECT_THAT(versions_->Commit(kModel, "1", 2).message(), HasSubstr("generation 3, not 2"));
  ASSERT_TRUE(versions_->Commit(kModel, "1", 3).ok());
  EXPECT_TRUE(versions_->Commit(kModel, "1", 3).ok()) << "again, as a tool that is run again does";
  EXPECT_TRUE(versions_->Prepare(kModel, "1", 3).ok());
  EXPECT_TRUE(versions_->Prepare(kModel, "2", 3).ok()) << "comes after it by its name";
  ASSERT_TRUE(versions_->Commit(kModel, "2", 3).ok());
  EXPECT_THAT(versions_->Prepare(kModel, "1", 3).message(), HasSubstr("with a higher one"));
}

// Two tools at once, whose requests reach the node in any order: they end with one version.
TEST_F(VersionManagerTest, TwoPublicationsOfOneGenerationEndAlikeInAnyOrder) {
  for (const std::vector<std::string>& order :
       {std::vector<std::string>{"1", "2"}, std::vector<std::string>{"2", "1"}}) {
    SCOPED_TRACE(order[0] + " first");
    ASSERT_TRUE(versions_->Abort(kModel, "1", 5).ok() && versions_->Abort(kModel, "2", 5).ok());
    const uint64_t generation = order[0] == "1" ? 5 : 6;
    for (const std::string& version : order) {
      ASSERT_TRUE(versions_->Prepare(kModel, version, generation).ok());
      ASSERT_TRUE(versions_->Promise(kModel, version, generation).ok());
    }
    ASSERT_TRUE(versions_->Commit(kModel, order[0], generation).ok());
    EXPECT_TRUE(versions_->Find(kModel, "2").ok()) << "the later one is still to be had by name";
    const Status second = versions_->Commit(kModel, order[1], generation);
    EXPECT_EQ(second.ok(), order[1] == "2") << second.message();
    EXPECT_EQ(Published(), "2");
    EXPECT_FALSE(versions_->Find(kModel, "1").ok());
    Open();
    EXPECT_EQ(Published(), "2");
  }
}

TEST_F(VersionManagerTest, GenerationsThatWouldEndTheNumbersAreRefused) {
  constexpr uint64_t kLast = std::numeric_limits<uint64_t>::max();
  ASSERT_TRUE(Publish("1", 1).ok());
  for (const uint64_t generation :
       {uint64_t{0}, kLast, kLast - 1, uint64_t{1} << 63, VersionManager::kGenerationStepMax + 2}) {
    EXPECT_EQ(versions_->Prepare(kModel, "2", generation).code(), Code::kInvalidArgument)
        << generation;
    EXPECT_FALSE(versions_->Promise(kModel, "2", generation).ok());
    EXPECT_FALSE(versions_->Commit(kModel, "2", generation).ok());
  }
  EXPECT_EQ(Published(), "1");
  EXPECT_TRUE(Publish("2", VersionManager::kGenerationStepMax + 1).ok());
}

// A store may hold a generation that Prepare refuses.
TEST_F(VersionManagerTest, TheLastGenerationDoesNotWrap) {
  VersionInfo last;
  last.model = kModel;
  last.version = "1";
  last.published = true;
  last.generation = std::numeric_limits<uint64_t>::max();
  const RecordChange record = CatalogRecord(last);
  ASSERT_TRUE(store_.WriteRecords({&record, 1}).ok());
  Open();
  EXPECT_EQ(Published(), "1");
  EXPECT_FALSE(versions_->Adopt(**FindManifest(store_, kModel, "2"), true).ok());
  EXPECT_FALSE(Publish("2", 1).ok());
  EXPECT_EQ(Published(), "1");
}

TEST_F(VersionManagerTest, APreparationWhoseToolHasGoneLapsesAndItsMemoryIsGivenBack) {
  ASSERT_TRUE(Publish("1", 1).ok());
  Open(std::chrono::milliseconds(20));
  ASSERT_TRUE(versions_->Prepare(kModel, "2", 2).ok());
  const TimePoint limit = Clock::Real().Now() + std::chrono::seconds(20);
  while (Info("2").loaded && Clock::Real().Now() < limit) std::this_thread::yield();
  EXPECT_FALSE(Info("2").loaded);
  EXPECT_EQ(Info("2").prepared_generation, 0u);
  EXPECT_THAT(versions_->Promise(kModel, "2", 2).message(), HasSubstr("lapsed"));
  EXPECT_THAT(versions_->Renew(kModel, "2", 2).message(), HasSubstr("lapsed"));
  EXPECT_THAT(versions_->Commit(kModel, "2", 2).message(), HasSubstr("lapsed"));
  EXPECT_EQ(Published(), "1");
  ASSERT_TRUE(versions_->Drop(kModel, "2").ok());
}

TEST_F(VersionManagerTest, APreparationEndsWithItsProcessAndAPromiseDoesNot) {
  ASSERT_TRUE(Publish("1", 1).ok());
  ASSERT_TRUE(versions_->Prepare(kModel, "2", 2).ok());
  ASSERT_TRUE(versions_->Prepare(kModel, "3", 3).ok());
  ASSERT_TRUE(versions_->Promise(kModel, "3", 3).ok());
  Open(std::chrono::milliseconds(1));
  EXPECT_FALSE(Info("2").loaded);
  EXPECT_EQ(Info("2").prepared_generation, 0u);
  EXPECT_EQ(Info("3").promised_generation, 3u);
  EXPECT_TRUE(versions_->Renew(kModel, "3", 3).ok());
  EXPECT_TRUE(versions_->Commit(kModel, "3", 3).ok());
  EXPECT_EQ(Published(), "3");
}

TEST_F(VersionManagerTest, AnAbortOfALaterTryLeavesAnEarlierPromise) {
  ASSERT_TRUE(versions_->Prepare(kModel, "2", 2).ok());
  ASSERT_TRUE(versions_->Promise(kModel, "2", 2).ok());
  ASSERT_TRUE(versions_->Prepare(kModel, "2", 3).ok());
  ASSERT_TRUE(versions_->Abort(kModel, "2", 3).ok());
  EXPECT_TRUE(versions_->Find(kModel, "2").ok()) << "another node may have committed it";
  EXPECT_TRUE(versions_->Commit(kModel, "2", 2).ok());
}

TEST_F(VersionManagerTest, WhatWouldKeepAVersionIsToldBeforeAnythingIsDropped) {
  ASSERT_TRUE(Publish("1", 1).ok());
  EXPECT_THAT(versions_->CheckDrop(kModel, "1").message(), HasSubstr("published"));
  EXPECT_TRUE(versions_->CheckDrop(kModel, "2").ok());
  EXPECT_TRUE(versions_->CheckDrop(kModel, "nothing").ok());
  ASSERT_TRUE(versions_->Prepare(kModel, "2", 2).ok());
  EXPECT_THAT(versions_->CheckDrop(kModel, "2").message(), HasSubstr("being published"));
  TablesPtr reader = versions_->Find(kModel, "2")->tables;
  ASSERT_TRUE(versions_->Abort(kModel, "2", 2).ok());
  EXPECT_THAT(versions_->CheckDrop(kModel, "2").message(), HasSubstr("sessions read it"));
  reader.reset();
  EXPECT_TRUE(versions_->CheckDrop(kModel, "2").ok());
  EXPECT_TRUE(versions_->Drop(kModel, "2").ok());
}

TEST_F(VersionManagerTest, PinnedAndPublishedVersionsAndBasesAreNotDropped) {
  ASSERT_TRUE(Publish("1", 1).ok());
  EXPECT_THAT(versions_->Drop(kModel, "1").message(), HasSubstr("published"));
  ASSERT_TRUE(versions_->Pin(kModel, "2").ok());
  EXPECT_TRUE(versions_->Find(kModel, "2").ok()) << "pinned: in memory";
  EXPECT_THAT(versions_->Drop(kModel, "2").message(), HasSubstr("pinned"));
  ASSERT_TRUE(versions_->Unpin(kModel, "2").ok());
  const ProceduralSource source({.layout = "v41", .rows_scale = 0.00001, .seed = 4});
  const table::TableIdentity identity = source.Identity("4");
  ImportOptions options;
  options.base_version = "2";
  const table::ClusterMap map = {.epoch = 1, .members = {"m0"}};
  ASSERT_TRUE(
      ImportTables(source, identity, map, *MakePlan(identity, map, "m0"), store_, options).ok());
  EXPECT_THAT(versions_->Drop(kModel, "2").message(), HasSubstr("version 4 is a delta on it"));
  ASSERT_TRUE(versions_->Drop(kModel, "4").ok());
  const size_t before = store_.page_count();
  auto repairing = repairer_.Pause();
  std::atomic<bool> dropped = false;
  std::thread drop([&] {
    EXPECT_TRUE(versions_->Drop(kModel, "2").ok());
    dropped = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(dropped) << "a repair may be writing the pages that are to go";
  EXPECT_EQ(store_.page_count(), before);
  repairing.unlock();
  drop.join();
  EXPECT_LT(store_.page_count(), before);
  EXPECT_EQ(versions_->Drop(kModel, "2").code(), Code::kNotFound);
}

TEST_F(VersionManagerTest, AFailedWriteAnywhereLosesNoPublishedVersionAndPublishesNoHalf) {
  ASSERT_TRUE(Publish("1", 1).ok());
  std::string published = "1";
  uint64_t generation = 1;
  for (int round = 0; round < 12; ++round) {
    const std::string next = published == "1" ? "2" : "1";
    const bool in_prepare = round % 2 == 0;
    if (!in_prepare) {
      ASSERT_TRUE(versions_->Prepare(kModel, next, generation + 1).ok());
    }
    store_.FailNextRecord("catalog/", Unavailable("the power went"));
    EXPECT_FALSE(Publish(next, generation + 1).ok());
    if (round % 3 == 0) Open();
    EXPECT_EQ(Published(), published);
    ASSERT_TRUE(Publish(next, ++generation).ok()) << "the same command again";
    published = next;
    Open();
    EXPECT_EQ(Published(), published);
  }
}

TEST_F(VersionManagerTest, AVersionThatCannotBeLoadedIsToldAndTheOthersAreServed) {
  ASSERT_TRUE(Publish("1", 1).ok());
  ASSERT_TRUE(versions_->Pin(kModel, "2").ok());
  store_.CorruptPage(TableSetIdOf(kModel, "2"), 0, 0);
  Open();
  EXPECT_EQ(Published(), "1");
  EXPECT_THAT(Info("2").problem, HasSubstr("damaged"));
  EXPECT_THAT(versions_->Find(kModel, "2").status().message(), HasSubstr("damaged"));
}

TEST_F(VersionManagerTest, TheConfiguredVersionIsPublishedOnlyWhereThatChangesNothingElse) {
  const auto manifest = *FindManifest(store_, kModel, "1");
  ASSERT_TRUE(versions_->Adopt(*manifest, false).ok());
  EXPECT_EQ(Published(), "1") << "nothing was";
  ASSERT_TRUE(Publish("2", 2).ok());
  ASSERT_TRUE(versions_->Adopt(*manifest, false).ok());
  EXPECT_EQ(Published(), "2");
  EXPECT_TRUE(versions_->Find(kModel, "1").ok()) << "but it is served";
  ASSERT_TRUE(versions_->Adopt(**FindManifest(store_, kModel, "3"), true).ok());
  EXPECT_EQ(Published(), "3") << "imported just now";
}

}  // namespace
}  // namespace engram::memnode
