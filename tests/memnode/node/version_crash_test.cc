// A node that dies at each of its writes in turn, while versions are published, pinned and dropped:
// what the next start finds, and that the same command then succeeds.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "memnode/node/version_manager.h"
#include "tests/memnode/fake_loader.h"
#include "tests/memnode/procedural_source.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

constexpr char kModel[] = "procedural";

// Fails the write of the number given and all that follow, as a process that was killed.
class DyingStore : public RowStore {
 public:
  explicit DyingStore(MemoryStore& store) : store_(store) {}
  void DieAtWrite(int number) { left_ = number; }
  bool dead() const { return left_ < 0; }

  Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) override {
    return store_.ReadRecords(prefix);
  }
  Status WriteRecords(std::span<const RecordChange> changes) override {
    RETURN_IF_ERROR(Live());
    return store_.WriteRecords(changes);
  }
  Result<std::unique_ptr<PageWriter>> NewFile(TableSetId table_set) override {
    return store_.NewFile(table_set);
  }
  Status Ingest(std::vector<std::unique_ptr<PageWriter>> files) override {
    RETURN_IF_ERROR(Live());
    return store_.Ingest(std::move(files));
  }
  Status DropPages(TableSetId table_set) override {
    RETURN_IF_ERROR(Live());
    return store_.DropPages(table_set);
  }
  Result<std::map<TableSetId, uint64_t>> AllPageBytes() override { return store_.AllPageBytes(); }
  Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first, uint64_t count,
                   const Visitor& visit) override {
    return store_.ReadPages(table_set, layer_index, first, count, visit);
  }
  Status ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                  std::string* bytes) override {
    return store_.ReadPage(table_set, layer_index, page, bytes);
  }

 private:
  Status Live() {
    if (left_ >= 0) --left_;
    return left_ < 0 ? Unavailable("the power went") : OkStatus();
  }

  MemoryStore& store_;
  int left_ = 1 << 30;
};

class VersionCrashTest : public testing::Test {
 protected:
  static void Import(RowStore& store, uint64_t seed) {
    const ProceduralSource source({.layout = "v41", .rows_scale = 0.00001, .seed = seed});
    const auto manifest = ImportProcedural(source, std::to_string(seed),
                                           {.epoch = 1, .members = {"m0"}}, "m0", store);
    ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  }
  std::unique_ptr<VersionManager> Open(RowStore& store) {
    auto versions = VersionManager::Open(store, loader_, *repairer_);
    CHECK(versions.ok()) << versions.status().ToString();
    return *std::move(versions);
  }
  static std::vector<std::string> Published(const VersionManager& versions) {
    std::vector<std::string> published;
    for (const VersionInfo& info : versions.List()) {
      if (info.published) published.push_back(info.version);
    }
    return published;
  }
  static Status Publish(VersionManager& versions, const std::string& version, uint64_t generation) {
    RETURN_IF_ERROR(versions.Prepare(kModel, version, generation));
    RETURN_IF_ERROR(versions.Promise(kModel, version, generation));
    return versions.Commit(kModel, version, generation);
  }
  static bool IsListed(const VersionManager& versions, const std::string& version) {
    return std::ranges::any_of(versions.List(),
                               [&](const VersionInfo& info) { return info.version == version; });
  }

  FakeLoader loader_;
  IdleRepairer repairer_;
};

TEST_F(VersionCrashTest, AnyWriteOfAPublicationMayBeTheLast) {
  int died = 0;
  for (int write = 0;; ++write) {
    MemoryStore disk;
    for (const uint64_t seed : {1, 2}) Import(disk, seed);
    ASSERT_TRUE(Publish(*Open(disk), "1", 1).ok());
    DyingStore dying(disk);
    dying.DieAtWrite(write);
    const bool published = Publish(*Open(dying), "2", 2).ok();
    EXPECT_EQ(published, !dying.dead());
    died += dying.dead() ? 1 : 0;

    const auto restarted = Open(disk);
    EXPECT_THAT(Published(*restarted), testing::ElementsAre(published ? "2" : "1")) << write;
    EXPECT_TRUE(restarted->Find(kModel, "").ok());
    ASSERT_TRUE(Publish(*restarted, "2", 2).ok()) << "the same command again";
    EXPECT_THAT(Published(*Open(disk)), testing::ElementsAre("2"));
    if (published) break;
  }
  EXPECT_EQ(died, 2) << "one write for the promise, one for the commit";
}

TEST_F(VersionCrashTest, AnyWriteOfADropMayBeTheLast) {
  for (int write = 0;; ++write) {
    MemoryStore disk;
    Import(disk, 1);
    const size_t pages_of_one = disk.page_count();
    Import(disk, 2);
    ASSERT_TRUE(Publish(*Open(disk), "1", 1).ok());
    DyingStore dying(disk);
    dying.DieAtWrite(write);
    auto versions = Open(dying);
    const bool dropped = versions->Drop(kModel, "2").ok();
    EXPECT_EQ(dropped, !dying.dead());

    const auto restarted = Open(disk);
    EXPECT_EQ(IsListed(*restarted, "2"), write == 0);
    if (write == 0) {
      ASSERT_TRUE(Publish(*restarted, "2", 2).ok()) << "whole, as nothing had been written";
      continue;
    }
    EXPECT_EQ(disk.page_count(), pages_of_one) << "its pages go at the next start";
    EXPECT_TRUE(disk.ReadRecords("dropping/")->empty());
    if (dropped) break;
  }
}

TEST_F(VersionCrashTest, AnImportAfterAnInterruptedDropIsNotDroppedByTheNextStart) {
  MemoryStore disk;
  for (const uint64_t seed : {1, 2}) Import(disk, seed);
  DyingStore dying(disk);
  const auto versions = Open(dying);
  dying.DieAtWrite(1);
  ASSERT_FALSE(versions->Drop(kModel, "2").ok());
  ASSERT_FALSE(disk.ReadRecords("dropping/")->empty());
  Import(disk, 2);
  const size_t pages = disk.page_count();
  const auto restarted = Open(disk);
  EXPECT_EQ(disk.page_count(), pages);
  EXPECT_TRUE(Publish(*restarted, "2", 1).ok());
  EXPECT_TRUE(disk.ReadRecords("dropping/")->empty());
}

TEST_F(VersionCrashTest, ADropThatFailedIsEndedByTheSameCommand) {
  MemoryStore disk;
  for (const uint64_t seed : {1, 2}) Import(disk, seed);
  DyingStore dying(disk);
  const auto versions = Open(dying);
  dying.DieAtWrite(1);
  ASSERT_FALSE(versions->Drop(kModel, "2").ok());
  EXPECT_FALSE(IsListed(*versions, "2"));
  dying.DieAtWrite(1 << 30);  // only the disk was full
  EXPECT_TRUE(versions->Drop(kModel, "2").ok());
  EXPECT_EQ(versions->Drop(kModel, "2").code(), Code::kNotFound);
}

TEST_F(VersionCrashTest, PinsAreWhatARestartFinds) {
  for (const bool dies : {true, false}) {
    MemoryStore disk;
    Import(disk, 1);
    DyingStore dying(disk);
    const auto versions = Open(dying);
    if (dies) dying.DieAtWrite(0);
    EXPECT_EQ(versions->Pin(kModel, "1").ok(), !dies);
    EXPECT_EQ(versions->List()[0].pinned, !dies);
    EXPECT_EQ(versions->List()[0].loaded, !dies) << "memory is given back";
    EXPECT_EQ(Open(disk)->List()[0].pinned, !dies);
  }
}

TEST_F(VersionCrashTest, OtherCallsDoNotWaitForALoad) {
  MemoryStore disk;
  for (const uint64_t seed : {1, 2, 3}) Import(disk, seed);
  std::promise<void> loading, may_go_on;
  loader_.before = [&](const Manifest& manifest) {
    if (manifest.identity.version == "2") {
      loading.set_value();
      may_go_on.get_future().wait();
    }
    return OkStatus();
  };
  const auto opened = Open(disk);
  VersionManager& versions = *opened;
  ASSERT_TRUE(versions.Prepare(kModel, "1", 1).ok());
  ASSERT_TRUE(versions.Pin(kModel, "3").ok());
  Status prepared;
  std::thread slow([&] { prepared = versions.Prepare(kModel, "2", 2); });
  loading.get_future().wait();
  EXPECT_TRUE(versions.Commit(kModel, "1", 1).ok());
  EXPECT_TRUE(versions.Unpin(kModel, "3").ok());
  EXPECT_TRUE(versions.Abort(kModel, "3", 9).ok());
  EXPECT_TRUE(versions.Find(kModel, "").ok());
  EXPECT_EQ(versions.List().size(), 3u);
  may_go_on.set_value();
  slow.join();
  EXPECT_TRUE(prepared.ok()) << prepared.message();
  EXPECT_TRUE(versions.Commit(kModel, "2", 2).ok());
}

TEST_F(VersionCrashTest, ALaterPublicationEndsEarlierPreparations) {
  MemoryStore disk;
  for (const uint64_t seed : {1, 2}) Import(disk, seed);
  const auto versions = Open(disk);
  ASSERT_TRUE(versions->Prepare(kModel, "1", 5).ok());
  ASSERT_TRUE(Publish(*versions, "2", 6).ok());
  EXPECT_FALSE(versions->Find(kModel, "1").ok()) << "out of memory";
  EXPECT_THAT(versions->Commit(kModel, "1", 5).message(), HasSubstr("was not prepared"));
  EXPECT_THAT(versions->Prepare(kModel, "1", 6).message(), HasSubstr("with a higher one"));
  EXPECT_THAT(Published(*Open(disk)), testing::ElementsAre("2"));
}

TEST_F(VersionCrashTest, WhatCannotBeLoadedIsNotCommittedUntilItIsPreparedAgain) {
  MemoryStore disk;
  for (const uint64_t seed : {1, 2}) Import(disk, seed);
  ASSERT_TRUE(Publish(*Open(disk), "1", 1).ok());
  {
    const auto before = Open(disk);
    ASSERT_TRUE(before->Prepare(kModel, "2", 2).ok());
    ASSERT_TRUE(before->Promise(kModel, "2", 2).ok());
  }
  bool damaged = true;
  loader_.before = [&](const Manifest& manifest) {
    return damaged && manifest.identity.version == "2" ? DataLoss("page 7 is damaged") : OkStatus();
  };
  const auto opened = Open(disk);
  EXPECT_THAT(opened->Commit(kModel, "2", 2).message(), HasSubstr("page 7 is damaged"));
  EXPECT_THAT(Published(*opened), testing::ElementsAre("1"));
  damaged = false;
  EXPECT_TRUE(Publish(*opened, "2", 2).ok());
  EXPECT_THAT(Published(*opened), testing::ElementsAre("2"));
}

}  // namespace
}  // namespace engram::memnode
