// What goes wrong with disks and folders: one clear error each, nothing wrong is served, and where
// there is a copy the store is made whole again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/e2e/durable_node.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::Binary;
using testing_support::CompareServedRows;
using testing_support::CompleteVersions;
using testing_support::DurableNode;
using testing_support::Finished;
using testing_support::FlipBit;
using testing_support::PageFiles;
using testing_support::Process;

class DiskFault : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("disk_fault");
    model_ = testing_support::MakeTables(work_dir_, 1);
    UseStore(work_dir_ + "/store");
  }
  void TearDown() override {
    node_.reset();
    if (mounted_) umount2(disk_.c_str(), MNT_DETACH);
    std::filesystem::remove_all(work_dir_);
  }
  void UseStore(const std::string& path) {
    store_ = path;
    node_ = std::make_unique<DurableNode>(work_dir_, path);
  }
  // A file system of its own for the store; false where that is not allowed.
  bool MountDisk(int mib) {
    disk_ = work_dir_ + "/disk";
    std::filesystem::create_directories(disk_);
    const std::string size = "size=" + std::to_string(mib) + "m";
    mounted_ = mount("none", disk_.c_str(), "tmpfs", 0, size.c_str()) == 0;
    if (mounted_) UseStore(disk_ + "/store");
    return mounted_;
  }
  void Remount(unsigned long flags, int mib) {
    const std::string size = "size=" + std::to_string(mib) + "m";
    ASSERT_EQ(mount("none", disk_.c_str(), "tmpfs", MS_REMOUNT | flags, size.c_str()), 0)
        << std::strerror(errno);
  }
  void Import() {
    ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
    node_->Stop();
  }
  void ExpectServed() {
    const Status served = CompareServedRows(node_->control(), model_path_, "1", 500, 1);
    EXPECT_TRUE(served.ok()) << served.message();
  }
  Finished Verify() {
    return testing_support::RunToEnd({Binary("engramctl"), "verify", "--store", store_}, work_dir_);
  }
  void TakeFolderAway() {
    model_path_ = model_ + "-away";
    std::filesystem::rename(model_, model_path_);
  }
  void BringFolderBack() {
    std::filesystem::rename(model_path_, model_);
    model_path_ = model_;
  }

  std::string work_dir_, store_, disk_;
  std::string model_;
  std::string model_path_;  // where the folder is now
  bool mounted_ = false;
  std::unique_ptr<DurableNode> node_;
};

TEST_F(DiskFault, AFullDiskIsToldAndTheImportEndsOnceThereIsRoom) {
  if (!MountDisk(6)) GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(errno);
  model_path_ = model_;
  node_->Start(model_);
  EXPECT_THAT(node_->Error(), AllOf(HasSubstr(store_), HasSubstr("the disk is full")));
  Remount(0, 64);
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  ExpectServed();
  node_->Stop();
  EXPECT_TRUE(CompleteVersions(store_).ok());
}

// The version that filled the disk can be dropped.
TEST_F(DiskFault, AVersionIsDroppedFromAFullDiskWhileTheOtherIsServed) {
  if (!MountDisk(80)) GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(errno);
  model_path_ = model_;
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  const auto ctl = [&](const std::string& command, const std::string& version) {
    std::vector<std::string> argv = {Binary("engramctl"),      command,     "--name",
                                     testing_support::kTables, "--version", version};
    if (command == "import") argv.insert(argv.end(), {"--model", model_});
    argv.insert(argv.end(), {command == "import" ? "--to" : "--nodes", node_->control()});
    return testing_support::RunToEnd(argv, work_dir_, 60s);
  };
  const Finished stored = ctl("import", "2");
  ASSERT_EQ(stored.exit_code, 0) << stored.err;
  {
    std::ofstream filler(disk_ + "/filler");
    while (filler << std::string(4096, 'x') && filler.flush()) continue;
  }
  const Finished refused = ctl("import", "3");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("the disk is full"));
  const Finished dropped = ctl("drop", "2");
  EXPECT_EQ(dropped.exit_code, 0) << dropped.err;
  ExpectServed();
  const Finished again = ctl("import", "3");
  EXPECT_EQ(again.exit_code, 0) << "there is room where version 2 was: " << again.err;
  node_->Stop();
}

TEST_F(DiskFault, AReadOnlyDiskIsToldAndCanBeVerified) {
  if (!MountDisk(64)) GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(errno);
  Import();
  Remount(MS_RDONLY, 64);
  node_->Start(model_);
  EXPECT_THAT(node_->Error(), AllOf(HasSubstr(store_), HasSubstr("read-only")));
  const Finished verify = Verify();
  EXPECT_EQ(verify.exit_code, 0) << verify.err;
  EXPECT_THAT(verify.out, HasSubstr("is sound"));
}

TEST_F(DiskFault, AFlippedBitIsNamedNeverServedAndRepairedFromTheFolder) {
  Import();
  FlipBit(PageFiles(store_)[0], 1'000'000);
  const Finished verify = Verify();
  EXPECT_EQ(verify.exit_code, 1);
  EXPECT_THAT(verify.out, HasSubstr("1 pages in 1 partitions are damaged"));
  EXPECT_THAT(verify.err, HasSubstr("engramctl: 1 of 1 table sets"));

  TakeFolderAway();
  node_->Start(model_);
  EXPECT_THAT(node_->Error(), AllOf(HasSubstr("page "), HasSubstr("checksum mismatch"),
                                    HasSubstr("cannot be repaired"), HasSubstr(model_)));
  ASSERT_TRUE(node_->StartReady("")) << node_->process().Stderr();
  EXPECT_THAT(CompareServedRows(node_->control(), model_path_, "1", 10, 1).message(),
              HasSubstr("page "))
      << "the node is there, and says why it does not serve";
  node_->Stop();

  BringFolderBack();
  ASSERT_TRUE(node_->StartReady("")) << node_->process().Stderr();
  ExpectServed();
  node_->Stop();
  EXPECT_EQ(Verify().exit_code, 0) << "it was repaired on disk as well";
}

TEST_F(DiskFault, ATruncatedFileIsNamedAndRepairedFromTheFolder) {
  Import();
  const std::string file = PageFiles(store_)[1];
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 3);
  const Finished verify = Verify();
  EXPECT_EQ(verify.exit_code, 1);
  EXPECT_THAT(verify.out, AllOf(HasSubstr("damaged"), HasSubstr("too short")));
  TakeFolderAway();
  node_->Start(model_);
  EXPECT_THAT(node_->Error(), AllOf(HasSubstr("page "), HasSubstr("cannot be repaired")));
  BringFolderBack();
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  ExpectServed();
  node_->Stop();
  EXPECT_EQ(Verify().exit_code, 0);
}

TEST_F(DiskFault, AFileThatIsGoneIsRepairedFromTheFolder) {
  Import();
  std::filesystem::remove(PageFiles(store_)[0]);
  EXPECT_EQ(Verify().exit_code, 1);
  model_path_ = model_;
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  ExpectServed();
  node_->Stop();
  EXPECT_EQ(Verify().exit_code, 0);
}

TEST_F(DiskFault, ARunningNodeFindsAndRepairsABitFromItsMemory) {
  node_->Set("store.scrub_mib_s=8");
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  TakeFolderAway();
  const std::string file = PageFiles(store_)[1];
  FlipBit(file, std::filesystem::file_size(file) / 10 * 9);  // the scrubber is not there yet
  const auto log_has = [&](const char* text) {
    return node_->process().Stderr().find(text) != std::string::npos;
  };
  EXPECT_TRUE(testing_support::Eventually([&] { return log_has("1 from memory"); }))
      << node_->process().Stderr();
  EXPECT_TRUE(log_has("damage in the store")) << node_->process().Stderr();
  ExpectServed();
  node_->Stop();
  EXPECT_EQ(Verify().exit_code, 0);
}

TEST_F(DiskFault, WhatIsPublishedIsNotLostWithTheWriteAheadLog) {
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  node_->Kill();
  std::vector<std::filesystem::path> logs;
  for (const auto& entry : std::filesystem::directory_iterator(store_)) {
    if (entry.path().extension() == ".log") logs.push_back(entry.path());
  }
  ASSERT_FALSE(logs.empty());
  for (const auto& log : logs) std::filesystem::remove(log);
  model_path_ = model_;
  ASSERT_TRUE(node_->StartReady("")) << node_->process().Stderr();
  ExpectServed();
}

TEST_F(DiskFault, AMissingShardIsNamed) {
  const std::string shard = model_ + "/model-00047-of-00048.safetensors";
  std::filesystem::rename(shard, shard + ".away");
  node_->Start(model_);
  EXPECT_THAT(node_->Error(), HasSubstr("model-00047-of-00048.safetensors"));
  std::filesystem::rename(shard + ".away", shard);
  model_path_ = model_;
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  ExpectServed();
}

TEST_F(DiskFault, AShardThatChangesDuringTheImportIsNamedAndNothingIsComplete) {
  const std::string shard = model_ + "/model-00048-of-00048.safetensors";
  Process& process = node_->Start(model_);
  // Its time changes all the while: whenever the node opened it, it is another one at the end.
  for (auto time = std::filesystem::last_write_time(shard); process.Running();
       std::this_thread::sleep_for(1ms)) {
    std::filesystem::last_write_time(shard, time += 1s);
    if (process.Stdout().find("ready ") != std::string::npos) break;
  }
  EXPECT_THAT(node_->Error(), AllOf(HasSubstr(shard), HasSubstr("changed")));
  const auto versions = CompleteVersions(store_);
  ASSERT_TRUE(versions.ok()) << versions.status().message();
  EXPECT_TRUE(versions->empty());
}

}  // namespace
}  // namespace engram
