#include "tests/bench/import/disk_ceilings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>

#include "common/base/owned_fd.h"

namespace engram::bench {
namespace {

constexpr size_t kBlockBytes = 4 << 20;
constexpr size_t kAlignment = 4096;

using Block = std::unique_ptr<std::byte, decltype(&std::free)>;

Block NewBlock() {
  Block block(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kBlockBytes)), &std::free);
  CHECK(block != nullptr);
  std::memset(block.get(), 0x5a, kBlockBytes);
  return block;
}

class File {
 public:
  // Without direct I/O where the file system has none, as in memory.
  File(const std::string& path, int flags)
      : fd_(::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0600)) {
    if (fd_.get() < 0 && errno == EINVAL) {
      fd_ = OwnedFd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
    }
  }
  int fd() const { return fd_.get(); }

 private:
  OwnedFd fd_;
};

Status Failed(std::string_view what, const std::string& path) {
  return Unavailable(
      fmt::format("cannot {} {} past the page cache: {}", what, path, std::strerror(errno)));
}

// Runs `work(thread's block, number of the piece)` for all pieces.
using Work = std::function<bool(std::byte* block, uint64_t piece)>;
bool ForPieces(uint64_t pieces, int threads, const Work& work) {
  std::atomic<uint64_t> next = 0;
  std::atomic<bool> good = true;
  std::vector<std::jthread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      const Block block = NewBlock();
      for (uint64_t piece = next++; piece < pieces && good; piece = next++) {
        if (!work(block.get(), piece)) good = false;
      }
    });
  }
  workers.clear();
  return good;
}

Result<uint64_t> ReadAll(const std::vector<std::string>& files, int threads) {
  uint64_t total = 0;
  for (const std::string& path : files) {
    const File file(path, O_RDONLY);
    struct stat stat = {};
    if (file.fd() < 0 || ::fstat(file.fd(), &stat) != 0) return Failed("read", path);
    const auto bytes = static_cast<uint64_t>(stat.st_size);
    const bool good = ForPieces(
        (bytes + kBlockBytes - 1) / kBlockBytes, threads, [&](std::byte* block, uint64_t piece) {
          return ::pread(file.fd(), block, kBlockBytes, static_cast<off_t>(piece * kBlockBytes)) >
                 0;
        });
    if (!good) return Failed("read", path);
    total += bytes;
  }
  return total;
}

Result<uint64_t> WriteAll(const std::string& path, uint64_t bytes, int threads) {
  const uint64_t pieces = (bytes + kBlockBytes - 1) / kBlockBytes;
  const File file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (file.fd() < 0) return Failed("write", path);
  bool good =
      ::posix_fallocate(file.fd(), 0, static_cast<off_t>(pieces * kBlockBytes)) == 0 &&
      ForPieces(pieces, threads, [&](std::byte* block, uint64_t piece) {
        return ::pwrite(file.fd(), block, kBlockBytes, static_cast<off_t>(piece * kBlockBytes)) ==
               static_cast<ssize_t>(kBlockBytes);
      });
  good = good && ::fdatasync(file.fd()) == 0;
  const Status failed = good ? OkStatus() : Failed("write", path);
  ::unlink(path.c_str());
  if (!good) return failed;
  return pieces * kBlockBytes;
}

Result<double> Rate(const std::function<Result<uint64_t>()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(const uint64_t bytes, work());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(bytes) / took.count();
}

}  // namespace

void DropCaches(const std::vector<std::string>& files) {
  ::sync();
  std::ofstream all("/proc/sys/vm/drop_caches");
  if (all << "3" << std::flush) return;
  for (const std::string& path : files) {
    const OwnedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() >= 0) ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
}

Result<double> ReadCeiling(const std::vector<std::string>& files, int threads) {
  return Rate([&] { return ReadAll(files, threads); });
}

Result<double> WriteCeiling(const std::string& path, uint64_t bytes, int threads) {
  return Rate([&] { return WriteAll(path, bytes, threads); });
}

Result<double> CopyCeiling(const std::vector<std::string>& files, const std::string& path,
                           int threads) {
  uint64_t bytes = 0;
  for (const std::string& file : files) {
    struct stat stat = {};
    if (::stat(file.c_str(), &stat) == 0) bytes += static_cast<uint64_t>(stat.st_size);
  }
  return Rate([&]() -> Result<uint64_t> {
    Result<uint64_t> written = uint64_t{0};
    std::jthread writer([&] { written = WriteAll(path, bytes, threads); });
    Result<uint64_t> read = ReadAll(files, threads);
    writer.join();
    if (!written.ok()) return written.status();
    return read;
  });
}

}  // namespace engram::bench
