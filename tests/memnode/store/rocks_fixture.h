// A durable store in a folder of its own, and pages of full size as imports write them.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/rng.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/tiny_checkpoint.h"

namespace engram::memnode {

inline constexpr TableSetId kSet = 0x0102030405060708;
inline constexpr TableSetId kOtherSet = kSet + 1;
inline constexpr size_t kFullPageBytes = 3968;
inline constexpr uint64_t kPages = 64;

inline std::string PageBytes(uint64_t page, uint64_t generation) {
  Rng rng(page * 1000 + generation);
  std::string bytes(kFullPageBytes, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng.NextU64());
  return bytes;
}

inline Result<std::unique_ptr<PageWriter>> Write(RowStore& store, TableSetId table_set,
                                                 uint64_t first, uint64_t count,
                                                 uint64_t generation) {
  ASSIGN_OR_RETURN(std::unique_ptr<PageWriter> file, store.NewFile(table_set));
  for (uint64_t page = first; page < first + count; ++page) {
    const std::string bytes = PageBytes(page, generation);
    RETURN_IF_ERROR(file->Put(0, page, std::as_bytes(std::span(bytes))));
  }
  RETURN_IF_ERROR(file->Finish());
  return file;
}

inline Status Import(RowStore& store, TableSetId table_set, uint64_t first, uint64_t count,
                     uint64_t generation = 0) {
  ASSIGN_OR_RETURN(std::unique_ptr<PageWriter> file,
                   Write(store, table_set, first, count, generation));
  std::vector<std::unique_ptr<PageWriter>> files;
  files.push_back(std::move(file));
  return store.Ingest(std::move(files));
}

inline Status PutRecord(RowStore& store, const std::string& key, const std::string& value) {
  const RecordChange change = {key, value};
  return store.WriteRecords({&change, 1});
}

// OK: both ways of reading give this generation's bytes. INTERNAL: wrong bytes, which must never
// be.
inline Status Compare(RowStore& store, TableSetId table_set, uint64_t first, uint64_t count,
                      uint64_t generation = 0) {
  Status worst;
  const auto take = [&](uint64_t page, const Status& read, std::string_view bytes) {
    if (!read.ok() && worst.ok()) worst = read;
    if (read.ok() && bytes != PageBytes(page, generation)) {
      worst = InternalError(fmt::format("page {} has other bytes", page));
    }
  };
  std::string bytes;
  for (uint64_t page = first; page < first + count; ++page) {
    const Status read = store.ReadPage(table_set, 0, page, &bytes);
    take(page, read, bytes);
  }
  uint64_t visited = 0;
  const Status read =
      store.ReadPages(table_set, 0, first, count, [&](uint64_t page, std::span<const std::byte> b) {
        take(page, OkStatus(), {reinterpret_cast<const char*>(b.data()), b.size()});
        ++visited;
        return OkStatus();
      });
  if (worst.ok()) worst = read;
  if (worst.ok() && visited != count) worst = InternalError("pages were left out");
  return worst;
}

inline void FlipBit(const std::string& path, uint64_t bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(bit / 8));
  const char byte = static_cast<char>(file.get() ^ (1 << (bit % 8)));
  file.seekp(static_cast<std::streamoff>(bit / 8));
  file.put(byte);
}

class RocksStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder("rocks_store");
    path_ = folder_ + "/store";
  }
  void TearDown() override {
    store_.reset();
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
    std::filesystem::remove_all(folder_);
  }

  Status Open() {
    store_.reset();  // a store has one owner
    ASSIGN_OR_RETURN(store_, OpenRocksStore(path_));
    return OkStatus();
  }
  // False: this process may not mount.
  bool Mount(const std::string& size) {
    mounted_ = ::mount("tmpfs", folder_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    return mounted_;
  }

  std::vector<std::string> FilesWith(const std::string& extension) const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      if (entry.path().extension() == extension) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  // Files of pages; those of records are small.
  size_t PageFiles() const {
    const std::vector<std::string> files = FilesWith(".sst");
    return static_cast<size_t>(std::count_if(files.begin(), files.end(), [](const auto& path) {
      return std::filesystem::file_size(path) > 16'384;
    }));
  }
  // The file that starts with this page of this set.
  std::string FileOf(TableSetId table_set, uint64_t page, uint64_t generation = 0) const {
    const std::string start = PageBytes(page, generation).substr(0, 64);
    for (const std::string& path : FilesWith(".sst")) {
      std::ifstream in(path, std::ios::binary);
      std::string head(256, '\0');
      in.read(head.data(), static_cast<std::streamsize>(head.size()));
      // The key is behind the three bytes of an entry's lengths, or four.
      const bool found = head.find(start) != std::string::npos;
      const bool own = head.substr(0, 12).find(static_cast<char>(table_set)) != std::string::npos;
      if (found && own) return path;
    }
    ADD_FAILURE() << "no file starts with page " << page;
    return "";
  }

  std::string folder_, path_;
  bool mounted_ = false;
  std::unique_ptr<RowStore> store_;
};

}  // namespace engram::memnode
