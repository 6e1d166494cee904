#include "memnode/store/disk_reserve.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "common/base/owned_fd.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

constexpr uint64_t kSectorBytes = 512;  // what st_blocks counts

uint64_t BytesTaken(const std::string& path) {
  struct stat file = {};
  return ::stat(path.c_str(), &file) == 0 ? static_cast<uint64_t>(file.st_blocks) * kSectorBytes
                                          : 0;
}

// 0, or why not.
int Allocate(const std::string& path, uint64_t bytes) {
  const auto folder = std::filesystem::path(path).parent_path();
  struct statvfs room = {};
  if (::statvfs(folder.c_str(), &room) == 0 && room.f_bavail * room.f_frsize < 2 * bytes) {
    return ENOSPC;
  }
  const OwnedFd file(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  if (file.get() < 0) return errno;
  return ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes));
}

bool Remove(const std::string& path) {
  std::error_code error;
  return std::filesystem::remove(path, error);
}

}  // namespace

void DiskReserve::Take() {
  const std::lock_guard lock(mutex_);
  if (bytes_ == 0 || BytesTaken(path_) >= bytes_) return;
  const int error = Allocate(path_, bytes_);
  if (error != 0) Remove(path_);  // half of it is no use
  if (error != 0 && !warned_) {
    obs::LogWarn(fmt::format(
        "no reserve for dropping versions when the disk is full file={} bytes={} why={}", path_,
        bytes_, std::strerror(error)));
  }
  warned_ = error != 0;
}

bool DiskReserve::Release() {
  const std::lock_guard lock(mutex_);
  return Remove(path_);
}

}  // namespace engram::memnode
