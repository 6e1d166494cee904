#include "common/io/mmap_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <utility>

namespace engram::io {

struct Guard {
  std::atomic<uintptr_t> begin = 0;  // 0: free
  std::atomic<uintptr_t> end = 0;
  std::atomic<bool> lost = false;  // a page of it was not there
};

namespace {

std::array<Guard, MmapFile::kMappedFilesMax> guards;
std::mutex guards_mutex;            // for taking and giving back, not for the handler
struct sigaction other_handler {};  // of faults that are not ours

// Runs on the thread that read the page, within the instruction that read it, which is then done
// again. Zeros take the place of the mapping from that page on: what a file lost is at its end.
void OnBusError(int, siginfo_t* info, void*) {
  const int error = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Guard& guard : guards) {
    const uintptr_t begin = guard.begin.load(), end = guard.end.load();
    if (address < begin || address >= end) continue;
    const auto page_bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    const uintptr_t page = address / page_bytes * page_bytes;
    guard.lost.store(true);
    void* const zeros = ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    errno = error;
    if (zeros != MAP_FAILED) return;
  }
  // Not ours: with the handler before this one the same instruction faults again.
  ::sigaction(SIGBUS, &other_handler, nullptr);
  errno = error;
}

void InstallHandler() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    return ::sigaction(SIGBUS, &action, &other_handler) == 0;
  }();
  static_cast<void>(installed);
}

// Null when all are taken.
Guard* TakeGuard(const void* begin, size_t size_bytes) {
  InstallHandler();
  const std::lock_guard lock(guards_mutex);
  for (Guard& guard : guards) {
    if (guard.begin.load() != 0) continue;
    const auto address = reinterpret_cast<uintptr_t>(begin);
    guard.lost.store(false);
    guard.end.store(address + size_bytes);
    guard.begin.store(address);
    return &guard;
  }
  return nullptr;
}

void GiveBack(Guard* guard) {
  const std::lock_guard lock(guards_mutex);
  guard->end.store(0);
  guard->begin.store(0);
}

int64_t ModifiedNs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

Status OpenError(const std::string& path, int error) {
  const Code code = error == ENOENT || error == ENOTDIR ? Code::kNotFound : Code::kInvalidArgument;
  return {code, fmt::format("cannot open {}: {}", path, std::strerror(error))};
}

}  // namespace

Result<MmapFile> MmapFile::Open(const std::string& path) {
  MmapFile file;
  file.path_ = path;
  // A pipe would let open() wait for one that writes to it.
  file.fd_ = OwnedFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd_.get() < 0) return OpenError(path, errno);
  struct stat info {};
  if (::fstat(file.fd_.get(), &info) != 0) return OpenError(path, errno);
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(fmt::format("cannot map {}: it is not a regular file", path));
  }
  file.modified_ns_ = ModifiedNs(info);
  if (info.st_size == 0) return file;
  const auto size_bytes = static_cast<size_t>(info.st_size);
  void* const mapped = ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, file.fd_.get(), 0);
  if (mapped == MAP_FAILED) {
    return ResourceExhausted(
        fmt::format("cannot map {} ({} bytes): {}", path, size_bytes, std::strerror(errno)));
  }
  file.data_ = static_cast<const std::byte*>(mapped);
  file.size_bytes_ = size_bytes;
  file.guard_ = TakeGuard(mapped, size_bytes);
  if (file.guard_ != nullptr) return file;
  return ResourceExhausted(
      fmt::format("cannot map {}: {} files are mapped already", path, kMappedFilesMax));
}

void MmapFile::Close() {
  if (guard_ != nullptr) GiveBack(guard_);
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

MmapFile::~MmapFile() { Close(); }

MmapFile::MmapFile(MmapFile&& other) noexcept { *this = std::move(other); }

MmapFile& MmapFile::operator=(MmapFile&& other) noexcept {
  if (this == &other) return *this;
  Close();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_bytes_ = std::exchange(other.size_bytes_, 0);
  fd_ = std::move(other.fd_);
  modified_ns_ = other.modified_ns_;
  guard_ = std::exchange(other.guard_, nullptr);
  return *this;
}

Result<std::span<const std::byte>> MmapFile::Slice(size_t offset, size_t size_bytes) const {
  if (offset > size_bytes_ || size_bytes > size_bytes_ - offset) {
    return OutOfRange(fmt::format("cannot read {} bytes at offset {} of {}: the file has {} bytes",
                                  size_bytes, offset, path_, size_bytes_));
  }
  return bytes().subspan(offset, size_bytes);
}

Status MmapFile::CheckUnchanged() const {
  if (fd_.get() < 0) return OkStatus();
  const auto changed = [&](const std::string& how) {
    return DataLoss(fmt::format("{} changed while it was in use: {}; put the file back and restart",
                                path_, how));
  };
  struct stat now {};
  if (::fstat(fd_.get(), &now) != 0) return changed(std::strerror(errno));
  if (static_cast<size_t>(now.st_size) != size_bytes_) {
    return changed(fmt::format("it has {} bytes instead of {}", now.st_size, size_bytes_));
  }
  if (guard_ != nullptr && guard_->lost.load()) return changed("a part of it could not be read");
  if (ModifiedNs(now) != modified_ns_) return changed("it was written to");
  return OkStatus();
}

void MmapFile::AdviseSequential() const {
  if (data_ != nullptr) {
    ::madvise(const_cast<std::byte*>(data_), size_bytes_, MADV_SEQUENTIAL);
  }
}

void MmapFile::AdviseRandom() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_bytes_, MADV_RANDOM);
}

}  // namespace engram::io
