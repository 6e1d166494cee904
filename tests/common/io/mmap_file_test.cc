#include "common/io/mmap_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

namespace engram::io {
namespace {

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name + "_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(MmapFile, SlicesAreTheFilesBytes) {
  const std::string path = WriteFile("mmap_slices", "0123456789");
  auto file = MmapFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  file->AdviseSequential();
  file->AdviseRandom();
  const auto slice = file->Slice(3, 4);
  ASSERT_TRUE(slice.ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(slice->data()), 4), "3456");
  EXPECT_TRUE(file->Slice(10, 0).ok());
  for (const auto& [offset, size] : {std::pair<size_t, size_t>{10, 1}, {11, 0}, {3, SIZE_MAX}}) {
    EXPECT_EQ(file->Slice(offset, size).status().code(), Code::kOutOfRange);
  }
  EXPECT_THAT(file->Slice(8, 5).status().message(), testing::HasSubstr("5 bytes at offset 8"));
}

TEST(MmapFile, MovesLeaveOneOwner) {
  const std::string path = WriteFile("mmap_moves", "abc");
  auto first = MmapFile::Open(path);
  ASSERT_TRUE(first.ok());
  MmapFile second = std::move(*first);
  EXPECT_EQ(first->size_bytes(), 0u);
  MmapFile third;
  third = std::move(second);
  EXPECT_EQ(third.size_bytes(), 3u);
  EXPECT_EQ(third.path(), path);
  EXPECT_EQ(third.bytes()[0], std::byte{'a'});
}

// One page is read before the cut and one after, which would end the process with SIGBUS.
TEST(MmapFile, AFileThatIsCutShortIsToldAndEndsNoProcess) {
  const std::string path = WriteFile("mmap_cut", std::string(1 << 16, 'x'));
  auto file = MmapFile::Open(path);
  auto other = MmapFile::Open(WriteFile("mmap_whole", std::string(1 << 16, 'y')));
  ASSERT_TRUE(file.ok() && other.ok());
  EXPECT_TRUE(file->CheckUnchanged().ok());
  EXPECT_EQ(file->bytes()[40'000], std::byte{'x'});
  std::filesystem::resize_file(path, 5000);
  EXPECT_EQ(file->bytes()[4999], std::byte{'x'});
  EXPECT_EQ(file->bytes()[40'000], std::byte{0});
  EXPECT_EQ(file->bytes()[9000], std::byte{0});
  EXPECT_EQ(file->CheckUnchanged().code(), Code::kDataLoss);
  EXPECT_THAT(file->CheckUnchanged().message(), testing::HasSubstr(path));
  EXPECT_THAT(file->CheckUnchanged().message(), testing::HasSubstr("5000 bytes instead of 65536"));
  // As long as before: what was read meanwhile were zeros all the same.
  std::filesystem::resize_file(path, 1 << 16);
  EXPECT_EQ(file->CheckUnchanged().code(), Code::kDataLoss);
  EXPECT_EQ(other->bytes()[40'000], std::byte{'y'});
  EXPECT_TRUE(other->CheckUnchanged().ok());
}

TEST(MmapFile, AFileThatIsWrittenToIsTold) {
  const std::string path = WriteFile("mmap_written", "0123456789");
  auto file = MmapFile::Open(path);
  ASSERT_TRUE(file.ok());
  std::filesystem::last_write_time(
      path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
  EXPECT_EQ(file->CheckUnchanged().code(), Code::kDataLoss);
  EXPECT_THAT(file->CheckUnchanged().message(), testing::HasSubstr(path));
}

TEST(MmapFile, AFileThatIsRenamedOrRemovedIsStillTheSame) {
  const std::string path = WriteFile("mmap_removed", "0123456789");
  auto file = MmapFile::Open(path);
  ASSERT_TRUE(file.ok());
  std::filesystem::remove(path);
  EXPECT_EQ(file->bytes()[3], std::byte{'3'});
  EXPECT_TRUE(file->CheckUnchanged().ok());
}

TEST(MmapFileDeathTest, ABusErrorElsewhereStillEndsTheProcess) {
  const std::string path = WriteFile("mmap_not_ours", std::string(1 << 16, 'x'));
  auto file = MmapFile::Open(path);
  ASSERT_TRUE(file.ok());
  EXPECT_DEATH(
      {
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        const auto* bytes = static_cast<const volatile char*>(
            ::mmap(nullptr, 1 << 16, PROT_READ, MAP_SHARED, fd, 0));
        std::filesystem::resize_file(path, 0);
        std::fprintf(stderr, "%d\n", bytes[40'000]);
      },
      "");
}

TEST(MmapFile, EmptyFileIsEmpty) {
  auto file = MmapFile::Open(WriteFile("mmap_empty", ""));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->bytes().empty());
}

TEST(MmapFile, WhatIsNotAFileIsRefused) {
  EXPECT_EQ(MmapFile::Open("/nonexistent/file").status().code(), Code::kNotFound);
  EXPECT_THAT(MmapFile::Open(testing::TempDir()).status().message(),
              testing::HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace engram::io
