// An import that is stopped anywhere, by its user, by the store or by a kill, goes on later to the
// same bytes, and does not do finished work again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>

#include "common/base/rng.h"
#include "memnode/node/version_manager.h"
#include "memnode/store/import_progress.h"
#include "tests/memnode/fake_loader.h"
#include "tests/memnode/upkeep/import_fixture.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

class ImportResumeTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = FreshFolder("import_resume");
    ManyLayers().Write(root_ + "/model");
    opened_ = OpenFolder(root_ + "/model");
    options_.threads = 1;
    options_.ingest_files = 3;
    const auto manifest = Import(*opened_.source, whole_, options_);
    ASSERT_TRUE(manifest.ok()) << manifest.status().message();
    expected_ = ContentsOf(whole_, *manifest);
    for (const Manifest::Layer& layer : manifest->layers) {
      partitions_ += layer.digests.size();
      group_max_ = std::max<uint64_t>(group_max_, layer.digests.size());
    }
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  Result<Manifest> Import(const client::TableSource& source, RowStore& store,
                          const ImportOptions& options) {
    return ImportFolder(source, opened_.model, map_, "m0", store, options);
  }
  bool Complete(RowStore& store) { return FindManifest(store, "model", "1")->has_value(); }
  // Imports what is left; returns the reads it took.
  uint64_t FinishImport(RowStore& store) {
    const WatchedSource watched(*opened_.source);
    const auto manifest = Import(watched, store, options_);
    EXPECT_TRUE(manifest.ok()) << manifest.status().message();
    if (!manifest.ok()) return 0;
    EXPECT_TRUE(ContentsOf(store, *manifest) == expected_);
    return watched.reads();
  }

  const table::ClusterMap map_ = {.epoch = 1, .members = {"m0", "m1"}};
  std::string root_;
  OpenedFolder opened_;
  ImportOptions options_;
  MemoryStore whole_;
  StoreContents expected_;
  uint64_t partitions_ = 0;
  uint64_t group_max_ = 0;  // partitions of a file
};

TEST_F(ImportResumeTest, CancelledAnywhereItGoesOnToTheSameBytes) {
  Rng rng(41);
  for (int run = 0; run < 40; ++run) {
    options_.threads = 1 + run % 3;
    const uint64_t stop_at = rng.NextBelow(partitions_);
    MemoryStore store;
    WatchedSource watched(*opened_.source);
    std::atomic<bool> cancel = false;
    watched.before_read = [&](uint64_t number) {
      if (number == stop_at) cancel = true;
    };
    ImportOptions stopped = options_;
    stopped.cancel = &cancel;
    const auto manifest = Import(watched, store, stopped);
    ASSERT_EQ(manifest.status().code(), Code::kCancelled) << stop_at;
    EXPECT_FALSE(Complete(store));
    const uint64_t again = FinishImport(store);
    // Only the files that were being made are made anew.
    EXPECT_LE(watched.reads() + again,
              partitions_ + static_cast<uint64_t>(options_.threads) * group_max_);
    EXPECT_GE(watched.reads() + again, partitions_);
  }
}

TEST_F(ImportResumeTest, WhatAKilledImportLeavesIsListedByNameAndDropped) {
  options_.ingest_files = 1;
  MemoryStore store;
  WatchedSource watched(*opened_.source);
  std::atomic<bool> cancel = false;
  watched.before_read = [&](uint64_t number) {
    if (number == 2 * group_max_) cancel = true;
  };
  ImportOptions stopped = options_;
  stopped.cancel = &cancel;
  ASSERT_FALSE(Import(watched, store, stopped).ok());
  ASSERT_GT(store.page_count(), 0u);
  const auto left = IncompleteImports(store);
  ASSERT_TRUE(left.ok() && left->size() == 1);
  EXPECT_EQ(left->front().model, "model");
  EXPECT_EQ(left->front().version, "1");
  EXPECT_GT(store.AllPageBytes()->at(left->front().id), 0u);

  FakeLoader loader;
  IdleRepairer repairer;
  const auto versions = VersionManager::Open(store, loader, *repairer);
  ASSERT_TRUE(versions.ok());
  const Status dropped = (*versions)->Drop("model", "1");
  EXPECT_TRUE(dropped.ok()) << dropped.message();
  EXPECT_EQ(store.page_count(), 0u);
  EXPECT_TRUE(IncompleteImports(store)->empty());
  EXPECT_TRUE(store.ReadRecords("")->empty());
  EXPECT_EQ((*versions)->Drop("model", "1").code(), Code::kNotFound);
}

TEST_F(ImportResumeTest, CancelledAgainAndAgainItStillEnds) {
  options_.ingest_files = 1;
  MemoryStore store;
  int runs = 0;
  for (bool complete = false; !complete; ++runs) {
    ASSERT_LT(runs, 100);
    WatchedSource watched(*opened_.source);
    std::atomic<bool> cancel = false;
    watched.before_read = [&](uint64_t number) {
      if (number == 2 * group_max_) cancel = true;
    };
    ImportOptions stopped = options_;
    stopped.cancel = &cancel;
    complete = Import(watched, store, stopped).ok();
  }
  EXPECT_GT(runs, 5);
  EXPECT_EQ(FinishImport(store), 0u);  // a complete version is not read again
}

TEST_F(ImportResumeTest, EveryFailingStepOfTheStoreIsSurvived) {
  options_.ingest_files = 5;
  MemoryStore unharmed;
  FaultyStore all(unharmed);
  ASSERT_TRUE(Import(*opened_.source, all, options_).ok());
  ASSERT_GT(all.operations(), 50u);
  for (uint64_t step = 0; step < all.operations(); ++step) {
    for (const bool after : {false, true}) {
      MemoryStore store;
      FaultyStore faulty(store);
      faulty.FailOperation(step, after);
      const auto manifest = Import(*opened_.source, faulty, options_);
      ASSERT_EQ(manifest.status().code(), Code::kResourceExhausted) << "step " << step;
      EXPECT_THAT(manifest.status().message(), HasSubstr("says the test"));
      // The last step writes the manifest: it may be there although the caller was not told.
      EXPECT_EQ(Complete(store), after && step + 1 == all.operations()) << "step " << step;
      FinishImport(store);
      if (HasFailure()) return;
    }
  }
}

TEST_F(ImportResumeTest, FailuresOfSeveralWorkersEndTheImport) {
  options_.threads = 4;
  for (uint64_t step = 2; step < 60; step += 3) {
    MemoryStore store;
    FaultyStore faulty(store);
    faulty.FailOperation(step, false);
    ASSERT_FALSE(Import(*opened_.source, faulty, options_).ok());
    EXPECT_FALSE(Complete(store));
    FinishImport(store);
  }
}

TEST_F(ImportResumeTest, DamagedProgressIsDoneAnew) {
  MemoryStore store;
  WatchedSource watched(*opened_.source);
  std::atomic<bool> cancel = false;
  watched.before_read = [&](uint64_t number) { cancel = number > partitions_ / 2; };
  ImportOptions stopped = options_;
  stopped.cancel = &cancel;
  ASSERT_FALSE(Import(watched, store, stopped).ok());
  const TableSetId id = TableSetIdOf("model", "1");
  const std::string prefix = fmt::format("import/{:016x}/", id);
  const RecordChange damage[] = {{prefix + "0/0", "short"}, {prefix + "x/y", "junk"}};
  ASSERT_TRUE(store.WriteRecords(damage).ok());
  EXPECT_GT(FinishImport(store), 0u);
}

// The rows that are in may be those of the old files.
TEST_F(ImportResumeTest, AnotherFolderStartsFromTheBeginning) {
  MemoryStore store;
  WatchedSource watched(*opened_.source);
  std::atomic<bool> cancel = false;
  watched.before_read = [&](uint64_t number) { cancel = number > partitions_ / 2; };
  ImportOptions stopped = options_;
  stopped.cancel = &cancel;
  ASSERT_FALSE(Import(watched, store, stopped).ok());
  const std::string shard = root_ + "/model/model.safetensors";
  const auto time = std::filesystem::last_write_time(shard);
  std::filesystem::last_write_time(shard, time + std::chrono::seconds(1));
  opened_ = OpenFolder(root_ + "/model");
  EXPECT_EQ(FinishImport(store), partitions_);
}

TEST_F(ImportResumeTest, AnotherMemberListStartsFromTheBeginning) {
  MemoryStore store;
  WatchedSource watched(*opened_.source);
  std::atomic<bool> cancel = false;
  watched.before_read = [&](uint64_t number) { cancel = number > partitions_ / 2; };
  ImportOptions stopped = options_;
  stopped.cancel = &cancel;
  ASSERT_FALSE(
      ImportFolder(watched, opened_.model, {.members = {"m0"}}, "m0", store, stopped).ok());
  EXPECT_EQ(FinishImport(store), partitions_);
}

TEST_F(ImportResumeTest, ProgressCountsWhatWasDoneBefore) {
  MemoryStore store;
  WatchedSource watched(*opened_.source);
  std::atomic<bool> cancel = false;
  watched.before_read = [&](uint64_t number) { cancel = number > partitions_ / 2; };
  ImportOptions told = options_;
  told.cancel = &cancel;
  ASSERT_FALSE(Import(watched, store, told).ok());
  std::vector<ImportProgress> seen;
  told.cancel = nullptr;
  told.on_progress = [&](const ImportProgress& progress) { seen.push_back(progress); };
  ASSERT_TRUE(Import(*opened_.source, store, told).ok());
  ASSERT_FALSE(seen.empty());
  EXPECT_GT(seen.front().rows_done,
            seen.front().bytes_read / opened_.source->row_format().row_bytes());
  EXPECT_EQ(seen.back().rows_done, seen.back().rows_total);
  EXPECT_LT(seen.back().bytes_read, seen.back().rows_total * 64);
}

// One worker holds a partition twice (its rows and their pages); what does not fit waits.
TEST_F(ImportResumeTest, LittleMemoryMeansFewerWorkers) {
  options_.threads = 8;
  options_.memory_mib = 0;
  MemoryStore store;
  const WatchedSource one(*opened_.source);
  ASSERT_TRUE(Import(one, store, options_).ok());
  EXPECT_EQ(one.reader_count(), 1u);

  // With room for all of them, two must be reading at once: each waits for the other.
  options_.memory_mib = 512;
  MemoryStore other;
  WatchedSource two(*opened_.source);
  std::mutex mutex;
  std::condition_variable arrived;
  int waiting = 0;
  two.before_read = [&](uint64_t) {
    std::unique_lock lock(mutex);
    if (++waiting >= 2) return arrived.notify_all();
    EXPECT_TRUE(arrived.wait_for(lock, std::chrono::seconds(30), [&] { return waiting >= 2; }));
  };
  ASSERT_TRUE(Import(two, other, options_).ok());
  EXPECT_GE(two.reader_count(), 2u);
}

}  // namespace
}  // namespace engram::memnode
