// The durable store and a bad disk: flipped bits, files cut short or gone, no room, read-only.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "memnode/store/import_progress.h"
#include "tests/memnode/store/rocks_fixture.h"

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST_F(RocksStoreTest, FlippedBitsNeverGiveWrongBytes) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  const std::string path = FileOf(kSet, 0);
  const uint64_t bits = fs::file_size(path) * 8;
  Rng rng(7);
  for (int i = 0; i < 40; ++i) {
    // Half of them where index, properties and footer are.
    const uint64_t rows = kPages * 4096 * 8;
    const uint64_t bit = i % 2 == 0 ? rng.NextU64() % rows : rows + rng.NextU64() % (bits - rows);
    store_.reset();
    FlipBit(path, bit);
    const Status opened = Open();
    ASSERT_TRUE(opened.ok()) << bit << " of " << bits << ": " << opened.message();
    const Status read = Compare(*store_, kSet, 0, kPages);
    EXPECT_TRUE(read.ok() || read.code() == Code::kDataLoss) << bit << ": " << read.ToString();
    if (bit < rows && bit % (4096 * 8) < kFullPageBytes * 8) {
      EXPECT_THAT(read.message(),
                  AllOf(HasSubstr(fmt::format("page {} of Engram layer index 0", bit / 8 / 4096)),
                        Not(HasSubstr("\n"))));
    }
    store_.reset();
    FlipBit(path, bit);
  }
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());
}

enum class DamageKind { kFirstPage, kMiddle, kEnd, kCutShort, kEmpty, kGone };

class RocksStoreDamage : public RocksStoreTest, public testing::WithParamInterface<DamageKind> {
 protected:
  void Inflict(const std::string& path) const {
    const uint64_t bytes = fs::file_size(path);
    switch (GetParam()) {
      case DamageKind::kFirstPage:
        return FlipBit(path, 100 * 8);
      case DamageKind::kMiddle:
        return FlipBit(path, bytes / 2 * 8);
      case DamageKind::kEnd:
        return FlipBit(path, (bytes - 8) * 8);  // the number all such files end in
      case DamageKind::kCutShort:
        return fs::resize_file(path, bytes / 2);
      case DamageKind::kEmpty:
        return fs::resize_file(path, 0);
      case DamageKind::kGone:
        fs::remove(path);
    }
  }
};

std::string NameOf(const testing::TestParamInfo<DamageKind>& instance) {
  constexpr const char* kNames[] = {"FirstPage", "Middle", "End", "CutShort", "Empty", "Gone"};
  return kNames[static_cast<size_t>(instance.param)];
}

INSTANTIATE_TEST_SUITE_P(, RocksStoreDamage,
                         testing::Values(DamageKind::kFirstPage, DamageKind::kMiddle,
                                         DamageKind::kEnd, DamageKind::kCutShort,
                                         DamageKind::kEmpty, DamageKind::kGone),
                         NameOf);

TEST_P(RocksStoreDamage, OthersAreServedAndTheFileCanBeReplaced) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  ASSERT_TRUE(Import(*store_, kSet, kPages, kPages).ok());
  ASSERT_TRUE(Import(*store_, kOtherSet, 0, kPages).ok());
  ASSERT_TRUE(PutRecord(*store_, "manifest/1", "one").ok());
  const std::string damaged = FileOf(kSet, 0);
  store_.reset();
  Inflict(damaged);

  const auto reader = OpenRocksStoreReadOnly(path_);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ(Compare(**reader, kSet, 0, kPages).code(), Code::kDataLoss);
  const Status opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.message();
  const Status read = Compare(*store_, kSet, 0, kPages);
  EXPECT_EQ(read.code(), Code::kDataLoss) << read.message();
  EXPECT_THAT(read.message(), AllOf(HasSubstr("of Engram layer index 0 is unreadable in the store"),
                                    HasSubstr(path_), Not(HasSubstr("\n"))));
  EXPECT_TRUE(Compare(*store_, kSet, kPages, kPages).ok());
  EXPECT_TRUE(Compare(*store_, kOtherSet, 0, kPages).ok());
  EXPECT_TRUE(PutRecord(*store_, "scrub/1", "two").ok());

  const Status repaired = Import(*store_, kSet, 0, kPages, 1);
  ASSERT_TRUE(repaired.ok()) << repaired.message();
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages, 1).ok());
  EXPECT_FALSE(fs::exists(damaged));
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages, 1).ok());
  EXPECT_EQ(store_->ReadRecords("")->size(), 2u);
  EXPECT_EQ(PageFiles(), 3u);
}

TEST_P(RocksStoreDamage, TheTableSetCanBeDropped) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  const std::string damaged = FileOf(kSet, 0);
  store_.reset();
  Inflict(damaged);
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(store_->DropPages(kSet).ok());
  EXPECT_FALSE(fs::exists(damaged));
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());
}

TEST_F(RocksStoreTest, DamagedListOfFilesIsOneClearErrorOrMissingPages) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, 4).ok());
  store_.reset();
  const std::string kept = folder_ + "/kept";
  fs::copy(path_, kept, fs::copy_options::recursive);
  int refused = 0;
  Rng rng(3);
  for (int i = 0; i < 40; ++i) {
    fs::remove_all(path_);
    fs::copy(kept, path_, fs::copy_options::recursive);
    std::string manifest;
    for (const auto& entry : fs::directory_iterator(path_)) {
      if (entry.path().filename().string().starts_with("MANIFEST")) manifest = entry.path();
    }
    FlipBit(manifest, rng.NextU64() % (fs::file_size(manifest) * 8));
    const Status opened = Open();
    if (!opened.ok()) {
      ++refused;
      EXPECT_EQ(opened.code(), Code::kDataLoss) << opened.message();
      EXPECT_THAT(opened.message(), AllOf(HasSubstr(path_), HasSubstr("import again")));
      continue;
    }
    const Status read = Compare(*store_, kSet, 0, 4);
    EXPECT_TRUE(read.ok() || read.code() == Code::kDataLoss) << read.ToString();
  }
  EXPECT_GT(refused, 20);
}

TEST_F(RocksStoreTest, ADamagedRecordIsNotForgottenInSilence) {
  ASSERT_TRUE(Open().ok());
  for (int i = 0; i < 20; ++i) {
    const RecordChange change = {fmt::format("k/{}", i), std::string(100, 'x')};
    ASSERT_TRUE(store_->WriteProgress({&change, 1}).ok());
  }
  store_.reset();
  std::string log;
  for (const std::string& path : FilesWith(".log")) {
    if (fs::file_size(path) > 0) log = path;
  }
  ASSERT_NE(log, "");
  FlipBit(log, fs::file_size(log) / 2 * 8);
  const Status opened = Open();
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.code(), Code::kDataLoss);
  EXPECT_THAT(opened.message(), AllOf(HasSubstr(path_), Not(HasSubstr("\n"))));
}

TEST_F(RocksStoreTest, PagesThatNoRecordNamesAreALostCatalogueNotAnEmptyStore) {
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(CheckPagesAreNamed(*store_, path_).ok()) << "an empty store is none";
  ASSERT_TRUE(Import(*store_, kSet, 0, 4).ok());
  const Status lost = CheckPagesAreNamed(*store_, path_);
  EXPECT_EQ(lost.code(), Code::kDataLoss);
  EXPECT_THAT(lost.message(), AllOf(HasSubstr(path_), HasSubstr("catalogue was lost")));
  for (const char* kind : {"manifest", "importing", "dropping"}) {
    const std::string key = fmt::format("{}/{:016x}", kind, kSet);
    ASSERT_TRUE(PutRecord(*store_, key, "m\n1").ok());
    EXPECT_TRUE(CheckPagesAreNamed(*store_, path_).ok()) << kind;
    const RecordChange gone = {key, std::nullopt};
    ASSERT_TRUE(store_->WriteRecords({&gone, 1}).ok());
  }
}

TEST_F(RocksStoreTest, ACatalogueWhoseFileIsGoneIsAnError) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  ASSERT_TRUE(PutRecord(*store_, "manifest/1", "one").ok());
  store_.reset();
  for (const std::string& path : FilesWith(".sst")) {
    if (fs::file_size(path) < 16'384) fs::remove(path);
  }
  Status opened = Open();
  if (opened.ok()) opened = store_->ReadRecords("manifest/").status();
  EXPECT_EQ(opened.code(), Code::kDataLoss) << opened.message();
}

TEST_F(RocksStoreTest, AFullDiskHasAReserveForDropping) {
  if (!Mount("40m")) GTEST_SKIP() << "this user may not mount a tmpfs";
  constexpr uint64_t kReserve = 8 << 20;
  const auto open = [&] {
    store_.reset();
    auto opened = OpenRocksStore(path_, kReserve);
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    if (opened.ok()) store_ = std::move(*opened);
    return store_ != nullptr;
  };
  const std::string reserve = path_ + "/reserve";
  const auto fill = [&] {
    std::ofstream out(folder_ + "/filler", std::ios::app);
    while (out << std::string(4096, 'x') && out.flush()) continue;
  };
  ASSERT_TRUE(open());
  EXPECT_EQ(fs::file_size(reserve), kReserve);
  ASSERT_TRUE(Import(*store_, kSet, 0, 16 * kPages).ok());
  EXPECT_TRUE(store_->CheckWritable().ok());
  fill();
  EXPECT_EQ(PutRecord(*store_, "k", "v").code(), Code::kResourceExhausted);
  EXPECT_THAT(store_->CheckWritable().message(), HasSubstr("the disk is full"));
  EXPECT_TRUE(fs::exists(reserve)) << "kept for drops only";
  const RecordChange dropping = {"dropping/1", "m\n1"};
  const Status begun = store_->WriteDrop({&dropping, 1});
  ASSERT_TRUE(begun.ok()) << begun.message();
  EXPECT_FALSE(fs::exists(reserve));
  ASSERT_TRUE(store_->DropPages(kSet).ok());
  fs::remove(folder_ + "/filler");
  ASSERT_TRUE(store_->WriteProgress({&dropping, 1}).ok());
  EXPECT_EQ(fs::file_size(reserve), kReserve) << "made again once there is room";

  fill();  // also a node that starts on a full disk can drop
  ASSERT_TRUE(open());
  const Status ended = store_->WriteDrop({&dropping, 1});
  EXPECT_TRUE(ended.ok()) << ended.message();
}

TEST_F(RocksStoreTest, AFullDiskLosesNothingAndIsUsedAgainWhenThereIsRoom) {
  if (!Mount("24m")) GTEST_SKIP() << "this user may not mount a tmpfs";
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  Status full;
  uint64_t files = 0;
  for (; full.ok() && files < 100; ++files) {
    full = Import(*store_, kOtherSet, files * 4 * kPages, 4 * kPages);
  }
  EXPECT_EQ(full.code(), Code::kResourceExhausted) << full.message();
  EXPECT_THAT(full.message(), AllOf(HasSubstr("the disk is full"), Not(HasSubstr("\n"))));
  EXPECT_TRUE(fs::is_empty(path_ + "/import"));

  std::vector<std::string> written;
  Status record;
  for (int i = 0; record.ok() && i < 1000; ++i) {
    const std::string key = fmt::format("k/{}", i);
    record = PutRecord(*store_, key, std::string(100'000, 'x'));
    if (record.ok()) written.push_back(key);
  }
  EXPECT_EQ(record.code(), Code::kResourceExhausted) << record.message();
  // RocksDB may have deleted an old log since: then there is room, and the record is kept.
  const Status retried = PutRecord(*store_, "k/retried", std::string(100'000, 'x'));
  if (retried.ok()) {
    written.push_back("k/retried");
  } else {
    EXPECT_EQ(retried.code(), Code::kResourceExhausted) << retried.message();
  }
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());

  ASSERT_TRUE(store_->DropPages(kOtherSet).ok());
  const Status again = PutRecord(*store_, "again", "there is room");
  ASSERT_TRUE(again.ok()) << again.message();
  ASSERT_TRUE(Import(*store_, kOtherSet, 0, kPages).ok());
  for (int reopened = 0; reopened < 2; ++reopened) {
    EXPECT_EQ(store_->ReadRecords("k/")->size(), written.size());
    EXPECT_EQ(store_->ReadRecords("again")->size(), 1u);
    EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());
    EXPECT_TRUE(Compare(*store_, kOtherSet, 0, kPages).ok());
    const Status opened = Open();
    ASSERT_TRUE(opened.ok()) << opened.message();
  }
}

// RocksDB remembers that the disk refused a write, and would end the process at the next ingestion.
TEST_F(RocksStoreTest, FilesAreIngestedAfterAWriteThatAFullDiskRefused) {
  if (!Mount("24m")) GTEST_SKIP() << "this user may not mount a tmpfs";
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done) EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());
  });
  Rng rng(3);
  std::string large(12 << 20, '\0');
  for (char& byte : large) byte = static_cast<char>(rng.NextU64());
  const std::string filler = folder_ + "/filler";
  for (int round = 0; round < 3; ++round) {
    std::ofstream(filler) << std::string(fs::space(folder_).available - (6 << 20), 'x');
    EXPECT_EQ(PutRecord(*store_, "large", large).code(), Code::kResourceExhausted);
    fs::remove(filler);
    if (round == 1) {
      const Status put = PutRecord(*store_, "between", "1");
      EXPECT_TRUE(put.ok()) << put.message();
    }
    const Status ingested = Import(*store_, kOtherSet, 0, kPages, static_cast<uint64_t>(round));
    EXPECT_TRUE(ingested.ok()) << ingested.message();
    EXPECT_TRUE(Compare(*store_, kOtherSet, 0, kPages, static_cast<uint64_t>(round)).ok());
    const Status put = PutRecord(*store_, fmt::format("after/{}", round), "1");
    EXPECT_TRUE(put.ok()) << put.message();
  }
  done = true;
  reader.join();
  for (int opened = 0; opened < 2; ++opened) {
    EXPECT_EQ(store_->ReadRecords("after/")->size(), 3u);
    EXPECT_EQ(store_->ReadRecords("between")->size(), 1u);
    EXPECT_TRUE(store_->ReadRecords("large")->empty());
    ASSERT_TRUE(Open().ok());
  }
}

// The scrubber repairs from the visitor of a read: the thread must not wait for itself.
TEST_F(RocksStoreTest, AVisitorMayUseTheStoreThatAFullDiskStopped) {
  if (!Mount("24m")) GTEST_SKIP() << "this user may not mount a tmpfs";
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  Rng rng(3);
  std::string large(12 << 20, '\0');
  for (char& byte : large) byte = static_cast<char>(rng.NextU64());
  const std::string filler = folder_ + "/filler";
  std::ofstream(filler) << std::string(fs::space(folder_).available - (6 << 20), 'x');
  EXPECT_EQ(PutRecord(*store_, "large", large).code(), Code::kResourceExhausted);
  fs::remove(filler);
  std::thread other;
  const Status read = store_->ReadPages(kSet, 0, 0, 1, [&](uint64_t, std::span<const std::byte>) {
    EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());
    EXPECT_EQ(Import(*store_, kOtherSet, 0, kPages).code(), Code::kUnavailable);
    // Waits for this visitor to end, and must not keep it from ending.
    other = std::thread([&] { EXPECT_TRUE(PutRecord(*store_, "other", "1").ok()); });
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(PutRecord(*store_, "own", "1").code(), Code::kUnavailable);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return OkStatus();
  });
  other.join();
  EXPECT_TRUE(read.ok()) << read.message();
  const Status imported = Import(*store_, kOtherSet, 0, kPages);
  EXPECT_TRUE(imported.ok()) << imported.message();
  EXPECT_TRUE(Compare(*store_, kSet, 0, kPages).ok());
}

TEST_F(RocksStoreTest, TheFirstRecordMayMeetAFullDisk) {
  if (!Mount("24m")) GTEST_SKIP() << "this user may not mount a tmpfs";
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(PutRecord(*store_, "before", "1").ok());
  ASSERT_TRUE(Open().ok());  // an empty log
  const std::string filler = folder_ + "/filler";
  {
    std::ofstream out(filler);
    while (out << std::string(4096, 'x') && out.flush()) continue;
  }
  EXPECT_EQ(PutRecord(*store_, "torn", std::string(50'000, 'x')).code(), Code::kResourceExhausted);
  fs::remove(filler);
  for (int i = 0; i < 3; ++i) {
    const Status put = PutRecord(*store_, fmt::format("after/{}", i), "1");
    ASSERT_TRUE(put.ok()) << put.message();
  }
  const Status opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.message();
  EXPECT_EQ(store_->ReadRecords("after/")->size(), 3u);
  EXPECT_EQ(store_->ReadRecords("before")->size(), 1u);
}

TEST_F(RocksStoreTest, AReadOnlyFileSystemIsOneClearErrorAndCanBeRead) {
  if (!Mount("24m")) GTEST_SKIP() << "this user may not mount a tmpfs";
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import(*store_, kSet, 0, kPages).ok());
  store_.reset();
  ASSERT_EQ(::mount("", folder_.c_str(), "", MS_REMOUNT | MS_RDONLY, nullptr), 0);
  const Status opened = Open();
  EXPECT_EQ(opened.code(), Code::kFailedPrecondition);
  EXPECT_THAT(opened.message(), AllOf(HasSubstr("read-only"), HasSubstr(path_)));
  const auto reader = OpenRocksStoreReadOnly(path_);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_TRUE(Compare(**reader, kSet, 0, kPages).ok());
}

}  // namespace
}  // namespace engram::memnode
