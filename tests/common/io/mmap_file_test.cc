#include "common/io/mmap_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace engram::io {
namespace {

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
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
