// Repair: from whatever copy is right, never with bytes that do not match, never another file.
#include "memnode/upkeep/repair.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "memnode/node/loader.h"
#include "memnode/upkeep/verify.h"
#include "tests/memnode/stored_tables.h"
#include "tests/memnode/tiny_checkpoint.h"

namespace engram::memnode {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class RepairTest : public testing::Test, protected RowCopies {
 protected:
  bool CopyRows(TableSetId id, uint32_t layer_index, uint64_t first, uint64_t count,
                std::byte* out) const override {
    const auto copy = memory_.find(id);
    return copy != memory_.end() && copy->second->ReadRows(layer_index, first, count, out).ok();
  }
  // A copy in memory of `version`, which holds the rows of `source`.
  void InMemory(const std::string& version, const client::TableSource& source) {
    memory_[StoredTables::Id(version)] = &source;
  }
  void InSource(std::shared_ptr<const client::TableSource> source) { source_ = std::move(source); }

  Result<RepairReport> Repair(const std::string& version, uint32_t layer, uint64_t page) {
    Repairer repairer(store_, *this, [this](const Manifest&) { return OpenSource(); });
    return repairer.Repair(kModel, version, layer, static_cast<uint32_t>(page / 2));
  }
  bool Sound(const std::string& version) {
    const auto report = VerifyTables(*tables_.Open(version), {.threads = 1});
    return report.ok() && report->sound();
  }

  MemoryStore store_;
  StoredTables tables_{store_};
  const TableSetId id_ = StoredTables::Id("1");
  std::map<TableSetId, const client::TableSource*> memory_;
  std::shared_ptr<const client::TableSource> source_;
  int sources_opened_ = 0;

 private:
  // Lends source_.
  class Borrowed : public ProceduralSource {
   public:
    explicit Borrowed(std::shared_ptr<const client::TableSource> source)
        : ProceduralSource(SmallSpec()), source_(std::move(source)) {}
    Status ReadRows(uint32_t layer_index, uint64_t first, uint64_t count,
                    std::byte* out) const override {
      return source_->ReadRows(layer_index, first, count, out);
    }

   private:
    std::shared_ptr<const client::TableSource> source_;
  };
  Result<std::unique_ptr<client::TableSource>> OpenSource() {
    ++sources_opened_;
    if (source_ == nullptr) return NotFound("the folder is gone");
    return std::unique_ptr<client::TableSource>(std::make_unique<Borrowed>(source_));
  }
};

TEST_F(RepairTest, WhatIsSoundIsLeftAlone) {
  const auto report = Repair("1", 0, 3);
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->files.empty());
  EXPECT_EQ(report->ToText(), "nothing was damaged");
}

TEST_F(RepairTest, MemoryIsAskedFirst) {
  InMemory("1", tables_.base());
  InSource(std::make_shared<ChangedSource>());
  store_.CorruptPage(id_, 0, 3);
  const auto report = Repair("1", 0, 3);
  ASSERT_TRUE(report.ok()) << report.status().message();
  ASSERT_EQ(report->files.size(), 1u);
  EXPECT_EQ(report->files[0].pages_from_memory, 1u);
  EXPECT_EQ(report->files[0].pages_from_source, 0u);
  EXPECT_EQ(report->files[0].pages, tables_.Open("1")->PageOfRow(0, tables_.base().rows(0) - 1) + 1)
      << "the file is written anew whole";
  EXPECT_EQ(sources_opened_, 0);
  EXPECT_TRUE(Sound("1"));
}

TEST_F(RepairTest, AllDamageOfAFileIsRepairedAtOnceFromTheSource) {
  InSource(std::make_shared<ChangedSource>());
  store_.CorruptPage(id_, 0, 3);
  store_.LosePage(id_, 0, 80);
  store_.CorruptPage(id_, 1, 5);
  const auto report = Repair("1", 0, 3);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->files[0].pages_from_source, 2u);
  EXPECT_EQ(sources_opened_, 1);
  EXPECT_FALSE(Sound("1")) << "layer 1 is another file";
  EXPECT_TRUE(Repair("1", 1, 5).ok());
  EXPECT_TRUE(Sound("1"));
}

TEST_F(RepairTest, MemoryThatLiesIsPassedOverForTheSource) {
  const ProceduralSource other(SmallSpec(4));
  InMemory("1", other);
  InSource(std::make_shared<ChangedSource>());
  store_.CorruptPage(id_, 1, 9);
  const auto report = Repair("1", 1, 9);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->files[0].pages_from_memory, 0u);
  EXPECT_EQ(report->files[0].pages_from_source, 1u);
  EXPECT_TRUE(Sound("1"));
}

TEST_F(RepairTest, NothingIsWrittenFromCopiesThatAreAllWrong) {
  const ProceduralSource other(SmallSpec(4));
  InMemory("1", other);
  InSource(std::make_shared<ProceduralSource>(SmallSpec(5)));
  store_.LosePage(id_, 1, 9);
  const size_t pages = store_.page_count();
  const auto report = Repair("1", 1, 9);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), Code::kDataLoss);
  EXPECT_THAT(report.status().message(),
              AllOf(HasSubstr("1 of 2 pages"), HasSubstr("memory: its rows do not match"),
                    HasSubstr("source")));
  EXPECT_EQ(store_.page_count(), pages);
  EXPECT_TRUE(tables_.Open("1")->ReadPartition(1, 7, [](uint64_t, auto) {}).ok());
}

TEST_F(RepairTest, WithoutAnyCopyItSaysWhyEachWasNoUse) {
  store_.CorruptPage(id_, 0, 0);
  const auto report = Repair("1", 0, 0);
  ASSERT_FALSE(report.ok());
  EXPECT_THAT(report.status().message(),
              AllOf(HasSubstr("not in memory"), HasSubstr("the folder is gone")));
}

TEST_F(RepairTest, ASoundPageOfOtherTablesIsReplacedToo) {
  InSource(std::make_shared<ChangedSource>());
  tables_.PutForeignPage("1", 0, 6);
  ASSERT_FALSE(Sound("1"));
  ASSERT_TRUE(Repair("1", 0, 6).ok());
  EXPECT_TRUE(Sound("1"));
}

TEST_F(RepairTest, ADeltasPageIsRepairedInItsOwnFile) {
  ChangedSource changed = tables_.base();
  changed.Change(0, 250);  // page 10
  changed.Change(0, 990);  // page 39
  tables_.PutDelta(changed, "2", "1");
  InMemory("2", changed);
  store_.CorruptPage(StoredTables::Id("2"), 0, 10);
  const auto report = Repair("2", 0, 10);
  ASSERT_TRUE(report.ok()) << report.status().message();
  ASSERT_EQ(report->files.size(), 1u);
  EXPECT_EQ(report->files[0].version, "2");
  EXPECT_EQ(report->files[0].pages, 2u) << "its changed pages, not those of its base";
  EXPECT_TRUE(Sound("2"));
  EXPECT_TRUE(Sound("1"));
}

TEST_F(RepairTest, ABasesPageIsRepairedInTheBasesFileFromTheDeltasMemory) {
  ChangedSource changed = tables_.base();
  changed.Change(0, 250);  // page 10, of the same partition as page 11
  tables_.PutDelta(changed, "2", "1");
  InMemory("2", changed);
  store_.CorruptPage(id_, 0, 11);
  const auto report = Repair("2", 0, 11);
  ASSERT_TRUE(report.ok()) << report.status().message();
  ASSERT_EQ(report->files.size(), 1u);
  EXPECT_EQ(report->files[0].version, "1");
  EXPECT_EQ(report->files[0].pages_from_memory, 1u);
  EXPECT_TRUE(Sound("1"));
  EXPECT_TRUE(Sound("2"));
}

TEST_F(RepairTest, ABasesPageThatTheDeltaReplacedIsNotTakenFromIt) {
  ChangedSource changed = tables_.base();
  changed.Change(0, 250);
  tables_.PutDelta(changed, "2", "1");
  InMemory("2", changed);
  store_.CorruptPage(id_, 0, 10);
  EXPECT_TRUE(Repair("2", 0, 10)->files.empty()) << "version 2 does not read it";
  EXPECT_FALSE(Repair("1", 0, 10).ok());
  InSource(std::make_shared<ChangedSource>());
  EXPECT_TRUE(Repair("1", 0, 10).ok());
  EXPECT_TRUE(Sound("1"));
  EXPECT_TRUE(Sound("2"));
}

TEST_F(RepairTest, ADroppedVersionIsNotWrittenTo) {
  store_.CorruptPage(id_, 0, 0);
  class Dropping : public ChangedSource {
   public:
    explicit Dropping(RowStore& store) : store_(store) {}
    Status ReadRows(uint32_t layer, uint64_t first, uint64_t count, std::byte* out) const override {
      RETURN_IF_ERROR(DropTableSet(store_, kModel, "1"));
      return ChangedSource::ReadRows(layer, first, count, out);
    }

   private:
    RowStore& store_;
  };
  // Only the damaged page's file had been read when the version went.
  InSource(std::make_shared<Dropping>(store_));
  const auto report = Repair("1", 0, 0);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(store_.page_count(), 0u);
  EXPECT_EQ(Repair("1", 0, 0).status().code(), Code::kNotFound);
}

TEST_F(RepairTest, ARepairThatWaitsCanBeGivenUp) {
  Repairer repairer(store_, *this);
  const auto paused = repairer.Pause();
  const std::atomic<bool> given_up = true;
  EXPECT_EQ(repairer.Repair(kModel, "1", 0, 0, &given_up).status().code(), Code::kCancelled);
}

TEST_F(RepairTest, AFullDiskIsToldAndChangesNothing) {
  InSource(std::make_shared<ChangedSource>());
  store_.CorruptPage(id_, 0, 0);
  store_.FailNextIngest(ResourceExhausted("the disk is full"));
  const auto report = Repair("1", 0, 0);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), Code::kResourceExhausted);
  EXPECT_FALSE(Sound("1"));
  EXPECT_TRUE(Repair("1", 0, 0).ok());
  EXPECT_TRUE(Sound("1"));
}

TEST_F(RepairTest, APartitionThatIsNotThereIsRefused) {
  EXPECT_EQ(Repair("1", 2, 0).status().code(), Code::kOutOfRange);
  EXPECT_EQ(Repair("1", 0, 1 << 20).status().code(), Code::kOutOfRange);
}

class RecordedSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder("repair");
    TinyCheckpoint().Write(folder_ + "/tiny");
    ModelRequest request;
    request.model_path = folder_ + "/tiny";
    request.model_name = "tiny";
    request.model_version = "1";
    request.map = {.epoch = 1, .members = {"m0"}};
    request.member = "m0";
    const auto imported = FindOrImport(request, store_);
    ASSERT_TRUE(imported.ok()) << imported.status().message();
    store_.CorruptPage(TableSetIdOf("tiny", "1"), 0, 1);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Status Repair() {
    const auto manifest = *FindManifest(store_, "tiny", "1");
    const auto reader = *TableReader::Open(store_, *manifest);
    const uint32_t partition = reader->cut(0).PartitionOf(reader->FirstRowOfPage(0, 1));
    return Repairer(store_, LoadedTables()).Repair("tiny", "1", 0, partition).status();
  }

  std::string folder_;
  MemoryStore store_;
};

TEST_F(RecordedSourceTest, TheFolderOfTheImportRepairs) {
  EXPECT_TRUE(Repair().ok());
  const auto reader = *TableReader::Open(store_, **FindManifest(store_, "tiny", "1"));
  EXPECT_TRUE(VerifyTables(*reader)->sound());
}

TEST_F(RecordedSourceTest, AFolderThatIsGoneIsNamed) {
  std::filesystem::remove_all(folder_);
  EXPECT_THAT(Repair().message(), HasSubstr(folder_));
}

TEST_F(RecordedSourceTest, OtherRowsInTheFolderAreRefused) {
  TinyCheckpoint{.seed = 8}.Write(folder_ + "/tiny");
  EXPECT_THAT(Repair().message(), AllOf(HasSubstr(folder_), HasSubstr("do not match the SHA-256")));
}

TEST_F(RecordedSourceTest, AnotherModelInTheFolderIsRefusedNamingTheField) {
  TinyCheckpoint{.vocab_size = 400}.Write(folder_ + "/tiny");
  EXPECT_THAT(Repair().message(), HasSubstr("total_rows"));
}

}  // namespace
}  // namespace engram::memnode
