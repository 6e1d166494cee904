// The catalog of versions: what is served, and that no failed write ever loses a published version
// or publishes half of one.
#include "memnode/version_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memnode/memory_store.h"
#include "memnode/served_tables.h"
#include "tests/memnode/procedural_source.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

constexpr char kModel[] = "procedural";

class VersionManagerTest : public testing::Test {
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
  void Open() {
    versions_.reset();
    auto opened =
        VersionManager::Open(store_, [this](const Manifest& manifest, const std::atomic<bool>*) {
          ++loads_;
          return Load(manifest);
        });
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    versions_ = std::move(*opened);
  }
  Result<TablesPtr> Load(const Manifest& manifest) {
    OpenTablesOptions options;
    options.map = manifest.map;
    options.member = "m0";
    options.arena.pages = PageBacking::kSmall;
    ASSIGN_OR_RETURN(TablesPtr tables, ServedTables::Open(store_, manifest, options, registry_));
    return tables;
  }
  Status Publish(const std::string& version, uint64_t generation) {
    RETURN_IF_ERROR(versions_->Prepare(kModel, version, generation));
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
  EXPECT_FALSE(versions_->Find(kModel, "1").ok()) << "nobody kept it";
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

TEST_F(VersionManagerTest, PreparedIsServedByNameOnlyAndAbortEndsIt) {
  ASSERT_TRUE(Publish("1", 1).ok());
  ASSERT_TRUE(versions_->Prepare(kModel, "2", 2).ok());
  EXPECT_EQ(Published(), "1");
  EXPECT_EQ(versions_->Find(kModel, "2")->generation, 0u);
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
  EXPECT_THAT(versions_->Prepare(kModel, "2", 3).message(), HasSubstr("with a higher one"));
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
  std::mutex repairs;
  int pauses = 0;
  versions_->PauseRepairsBy([&] {
    ++pauses;
    return std::unique_lock(repairs);
  });
  ASSERT_TRUE(versions_->Drop(kModel, "2").ok());
  EXPECT_EQ(pauses, 1) << "no repair writes while pages go";
  EXPECT_TRUE(std::unique_lock(repairs, std::try_to_lock).owns_lock());
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
