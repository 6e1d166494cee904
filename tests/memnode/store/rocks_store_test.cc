// The durable store's own promises: what is replaced, dropped, killed, read and written at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/table/placement.h"
#include "memnode/store/page.h"
#include "tests/memnode/store/rocks_fixture.h"

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(RocksStoreTest, OnePageIsOneBlockOfOneDiskRead) {
  ASSERT_TRUE(Open().ok());
  for (const uint32_t row_bytes : {160u, 264u, 320u, 512u}) {
    std::string page;
    const std::vector<std::byte> rows(size_t{table::RowsPerPage(row_bytes)} * row_bytes);
    EncodePage(rows, row_bytes, &page);
    auto file = store_->NewFile(row_bytes);
    ASSERT_TRUE(file.ok());
    for (uint64_t i = 0; i < 1000; ++i) {
      ASSERT_TRUE((*file)->Put(0, i, std::as_bytes(std::span(page))).ok());
    }
    ASSERT_TRUE((*file)->Finish().ok());
    const auto size = fs::file_size(path_ + "/import/" + [&] {
      return fs::directory_iterator(path_ + "/import")->path().filename().string();
    }());
    EXPECT_GE(size, 1000u * 4096) << row_bytes;
    EXPECT_LE(size, 1000u * 4096 + 1000 * 16 + 4096) << row_bytes;
  }
}

TEST_F(RocksStoreTest, ReplacingPagesLeavesOneFileAlsoManyTimes) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, kPages, kPages).ok());
  for (uint64_t generation = 0; generation < 5; ++generation) {
    ASSERT_TRUE(Import(*store_, kSet, 0, kPages, generation).ok());
    const Status read = Compare(*store_, kSet, 0, kPages, generation);
    ASSERT_TRUE(read.ok()) << read.message();
    EXPECT_EQ(PageFiles(), 2u);
  }
  EXPECT_TRUE(Compare(*store_, kSet, kPages, kPages).ok()) << "its neighbour is as it was";
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages, 4).ok());
}

TEST_F(RocksStoreTest, TheCatalogueIsNotLostWithTheWriteAheadLog) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(PutRecord(*store_, "manifest/1", "one").ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  ASSERT_TRUE(PutRecord(*store_, "catalog/1", "published").ok());
  store_.reset();
  const std::vector<std::string> logs = FilesWith(".log");
  ASSERT_FALSE(logs.empty());
  for (const std::string& log : logs) fs::remove(log);
  const Status opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.message();
  const auto records = store_->ReadRecords("");
  ASSERT_TRUE(records.ok()) << records.status().message();
  EXPECT_EQ(records->size(), 2u);
  EXPECT_EQ(records->at("catalog/1"), "published");
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());
}

TEST_F(RocksStoreTest, FilesBetweenTheOthersPagesKeepThem) {
  ASSERT_TRUE(Open().ok());
  auto file = store_->NewFile(kSet);
  ASSERT_TRUE(file.ok());
  for (const uint64_t page : {0, 10}) {
    const std::string bytes = PageBytes(page, 0);
    ASSERT_TRUE((*file)->Put(0, page, std::as_bytes(std::span(bytes))).ok());
  }
  ASSERT_TRUE((*file)->Finish().ok());
  std::vector<std::unique_ptr<PageWriter>> files;
  files.push_back(std::move(*file));
  ASSERT_TRUE(store_->Ingest(std::move(files)).ok());
  ASSERT_TRUE(Import(*store_, kSet, 1, 9).ok());
  EXPECT_TRUE(Compare(*store_, kSet, 0, 11).ok());
  ASSERT_TRUE(Import(*store_, kSet, 5, 10).ok());
  EXPECT_TRUE(Compare(*store_, kSet, 0, 15).ok());
}

TEST_F(RocksStoreTest, DroppingGivesTheSpaceBackAtOnce) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, 16 * kPages).ok());
  ASSERT_TRUE(Import(*store_, kOtherSet, 0, kPages).ok());
  ASSERT_TRUE(store_->DropPages(kSet).ok());
  EXPECT_EQ(PageFiles(), 1u);
  EXPECT_TRUE(store_->DropPages(kSet).ok()) << "nothing there";
  EXPECT_TRUE(Compare(*store_, kOtherSet, 0, kPages).ok());
}

TEST_F(RocksStoreTest, ImportsLeaveNoFilesBehind) {
  ASSERT_TRUE(Open().ok());
  { ASSERT_TRUE(Write(*store_, kSet, 0, 4, 0).ok()); }
  EXPECT_TRUE(fs::is_empty(path_ + "/import")) << "a finished file that was not ingested";
  store_.reset();
  std::ofstream(path_ + "/import/000007.sst") << "what a killed process left";
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(fs::is_empty(path_ + "/import"));
}

TEST_F(RocksStoreTest, IsReadByOthersWhileItIsOpenAndOnlyRead) {
  EXPECT_EQ(OpenRocksStoreReadOnly(path_).status().code(), Code::kNotFound);
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  ASSERT_TRUE(PutRecord(*store_, "manifest/1", "one").ok());
  const auto reader = OpenRocksStoreReadOnly(path_);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_TRUE(Compare(**reader, kSet, 0, kPages).ok());
  EXPECT_THAT(*(*reader)->ReadRecords(""), ElementsAre(testing::Pair("manifest/1", "one")));
  for (const Status& refused : {PutRecord(**reader, "k", "v"), (*reader)->DropPages(kSet),
                                (*reader)->Ingest({}), (*reader)->NewFile(kSet).status()}) {
    EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
    EXPECT_THAT(refused.message(), HasSubstr("reading only"));
  }
  const auto second = OpenRocksStore(path_);
  EXPECT_EQ(second.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(second.status().message(), HasSubstr("another process has it open"));
  EXPECT_TRUE(PutRecord(*store_, "k", "v").ok()) << "the owner is not disturbed";
}

TEST_F(RocksStoreTest, ReadersOfAPageThatIsReplacedSeeItOldOrNew) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  ASSERT_TRUE(Import(*store_, kOtherSet, 0, kPages).ok());
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0, read = 0;
  std::vector<std::string> wanted;  // by generation
  for (uint64_t generation = 0; generation < 2; ++generation) {
    wanted.push_back(PageBytes(5, generation));
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      std::string bytes;
      while (!stop) {
        const Status got = store_->ReadPage(kSet, 0, 5, &bytes);
        if (!got.ok() || (bytes != wanted[0] && bytes != wanted[1])) ++wrong;
        if (!Compare(*store_, kOtherSet, 0, 4).ok()) ++wrong;
        ++read;
      }
    });
  }
  threads.emplace_back([&] {
    for (uint64_t i = 0; i < 10; ++i) {
      const TableSetId own = kOtherSet + 1;
      if (!Import(*store_, own, 0, kPages).ok() || !Compare(*store_, own, 0, kPages).ok() ||
          !PutRecord(*store_, "k", "v").ok() || !store_->DropPages(own).ok()) {
        ++wrong;
      }
    }
  });
  for (uint64_t i = 0; i < 10 || read < 10; ++i) {
    ASSERT_TRUE(Import(*store_, kSet, 0, kPages, i % 2).ok());
  }
  threads.back().join();
  stop = true;
  for (int i = 0; i < 3; ++i) threads[static_cast<size_t>(i)].join();
  EXPECT_EQ(wrong, 0);
}

// The child replaces the same pages again and again until it is killed.
TEST_F(RocksStoreTest, KilledWhileReplacingPagesItHasOneGenerationWhole) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  Rng rng(5);
  for (int round = 0; round < 8; ++round) {
    store_.reset();
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = OpenRocksStore(path_);
      for (uint64_t i = 0; store.ok() && ::write(ready[1], "r", 1) == 1; ++i) {
        if (!Import(**store, kSet, 0, kPages, i % 2).ok()) break;
      }
      ::_exit(1);
    }
    char byte = 0;
    ::close(ready[1]);
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    std::this_thread::sleep_for(std::chrono::microseconds(rng.NextBelow(40'000)));
    ::kill(child, SIGKILL);
    int how = 0;
    ::waitpid(child, &how, 0);
    ::close(ready[0]);
    EXPECT_TRUE(WIFSIGNALED(how)) << "an import failed";
    const Status opened = Open();
    ASSERT_TRUE(opened.ok()) << opened.message();
    const Status even = Compare(*store_, kSet, 0, kPages, 0);
    const Status odd = Compare(*store_, kSet, 0, kPages, 1);
    EXPECT_TRUE(even.ok() || odd.ok()) << even.message() << "; " << odd.message();
    EXPECT_EQ(PageFiles(), 1u);
  }
}

}  // namespace
}  // namespace engram::memnode
