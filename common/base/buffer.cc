#include "common/base/buffer.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

namespace engram {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kSmallPageBytes = 4096;
constexpr int kMadvCollapse = 25;  // MADV_COLLAPSE, which older headers lack
// A client maps pages that are there before its first lookup: 0.6 ms a GiB in huge pages; in small
// ones it stops after this, and the rest is mapped as it is touched.
constexpr auto kPopulateMax = std::chrono::milliseconds(200);
constexpr size_t kPopulateBytes = size_t{64} << 20;    // between two looks at the clock
constexpr unsigned kHuge2Mib = 21u << MAP_HUGE_SHIFT;  // the same bits in MFD_ and MAP_ flags

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void* Map(size_t size_bytes, int extra_flags) {
  void* p = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

// From 2 MiB on aligned to that, which a huge page is mapped by only then.
void* MapFd(int fd, size_t size_bytes, int protection) {
  void* p = nullptr;
  if (size_bytes < kHugePageBytes) {
    p = mmap(nullptr, size_bytes, protection, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? nullptr : p;
  }
  const size_t reserved_bytes = size_bytes + kHugePageBytes;
  void* const reserved =
      mmap(nullptr, reserved_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(reserved);
  const uintptr_t aligned = RoundUp(begin, kHugePageBytes);
  p = mmap(reinterpret_cast<void*>(aligned), size_bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  const int error = errno;
  const uintptr_t end = RoundUp(aligned + size_bytes, kSmallPageBytes);
  if (p == MAP_FAILED) {
    munmap(reserved, reserved_bytes);
    errno = error;
    return nullptr;
  }
  if (aligned > begin) munmap(reserved, aligned - begin);
  if (begin + reserved_bytes > end) {
    munmap(reinterpret_cast<void*>(end), begin + reserved_bytes - end);
  }
  return p;
}

// A sized and sealed memfd and its mapping; -1 when the kernel has no such memory.
int MakeMemfd(size_t size_bytes, unsigned flags, void** mapping) {
  const int fd = memfd_create("engram-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
  if (fd < 0) return -1;
  if (ftruncate(fd, static_cast<off_t>(size_bytes)) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) {
    *mapping = MapFd(fd, size_bytes, PROT_READ | PROT_WRITE);
    if (*mapping != nullptr) return fd;
  }
  close(fd);
  return -1;
}

// Makes huge pages of shared memory whose pages are not there yet: a byte in each, then all.
bool Collapse(std::byte* memory, size_t size_bytes) {
  for (size_t at = 0; at < size_bytes; at += kHugePageBytes) {
    reinterpret_cast<volatile std::byte*>(memory)[at] = std::byte{0};
  }
  return madvise(memory, size_bytes, kMadvCollapse) == 0;
}

bool CollapseWorks() {
  void* mapping = nullptr;
  const int fd = MakeMemfd(kHugePageBytes, 0, &mapping);
  if (fd < 0) return false;
  const bool works = Collapse(static_cast<std::byte*>(mapping), kHugePageBytes);
  munmap(mapping, kHugePageBytes);
  close(fd);
  return works;
}

bool SharedMemoryAsksForHugePages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  for (const char* mode : {"[always]", "[within_size]", "[advise]", "[force]"}) {
    if (text.find(mode) != std::string::npos) return true;
  }
  return false;
}

void Populate(void* mapping, size_t size_bytes) {
  auto* const memory = static_cast<std::byte*>(mapping);
  const auto end = std::chrono::steady_clock::now() + kPopulateMax;
  for (size_t at = 0; at < size_bytes; at += kPopulateBytes) {
    const size_t bytes = std::min(kPopulateBytes, size_bytes - at);
    if (madvise(memory + at, bytes, MADV_POPULATE_READ) != 0) return;  // Linux 5.14
    if (std::chrono::steady_clock::now() > end) return;
  }
}

}  // namespace

bool SharedHugePages() {
  static const bool huge = SharedMemoryAsksForHugePages() || CollapseWorks();
  return huge;
}

std::string_view PageBackingName(PageBacking backing) {
  switch (backing) {
    case PageBacking::kSmall:
      return "4k";
    case PageBacking::kTransparent:
      return "thp";
    case PageBacking::kHugeTlb:
      return "hugetlb";
  }
  return "?";
}

Result<AlignedBuffer> AlignedBuffer::Allocate(size_t size_bytes, PageBacking wanted) {
  AlignedBuffer buffer;
  if (size_bytes == 0) return buffer;
  if (size_bytes < kHugePageBytes) wanted = PageBacking::kSmall;
  buffer.size_bytes_ = size_bytes;
  if (wanted == PageBacking::kHugeTlb) {
    buffer.mapping_bytes_ = RoundUp(size_bytes, kHugePageBytes);
    buffer.mapping_ = Map(buffer.mapping_bytes_, MAP_HUGETLB);
    buffer.data_ = static_cast<std::byte*>(buffer.mapping_);
    buffer.backing_ = PageBacking::kHugeTlb;
    if (buffer.mapping_ != nullptr) return buffer;
    wanted = PageBacking::kTransparent;
  }
  const bool huge = wanted == PageBacking::kTransparent;
  const size_t alignment = huge ? kHugePageBytes : kSmallPageBytes;
  buffer.mapping_bytes_ = RoundUp(size_bytes, alignment) + (huge ? kHugePageBytes : 0);
  buffer.mapping_ = Map(buffer.mapping_bytes_, 0);
  if (buffer.mapping_ == nullptr) {
    const size_t asked = std::exchange(buffer.size_bytes_, 0);
    return ResourceExhausted(
        fmt::format("cannot map {} bytes of memory: {}", asked, std::strerror(errno)));
  }
  const auto address = reinterpret_cast<uintptr_t>(buffer.mapping_);
  buffer.data_ = reinterpret_cast<std::byte*>(RoundUp(address, alignment));
  buffer.backing_ = PageBacking::kSmall;
  if (huge && madvise(buffer.data_, RoundUp(size_bytes, kHugePageBytes), MADV_HUGEPAGE) == 0) {
    buffer.backing_ = PageBacking::kTransparent;
  }
  return buffer;
}

Result<AlignedBuffer> AlignedBuffer::AllocateShared(size_t size_bytes, PageBacking wanted) {
  AlignedBuffer buffer;
  if (size_bytes == 0) return buffer;
  if (size_bytes < kHugePageBytes) wanted = PageBacking::kSmall;
  buffer.size_bytes_ = size_bytes;
  buffer.mapping_bytes_ =
      RoundUp(size_bytes, wanted == PageBacking::kSmall ? kSmallPageBytes : kHugePageBytes);
  buffer.backing_ = wanted;
  int fd = -1;
  if (wanted == PageBacking::kHugeTlb) {
    fd = MakeMemfd(buffer.mapping_bytes_, MFD_HUGETLB | kHuge2Mib, &buffer.mapping_);
    if (fd < 0) buffer.backing_ = PageBacking::kTransparent;
  }
  if (fd < 0) fd = MakeMemfd(buffer.mapping_bytes_, 0, &buffer.mapping_);
  if (fd < 0) {
    return ResourceExhausted(
        fmt::format("cannot map {} bytes of shared memory: {}", size_bytes, std::strerror(errno)));
  }
  buffer.data_ = static_cast<std::byte*>(buffer.mapping_);
  if (buffer.backing_ == PageBacking::kTransparent) {
    const bool huge = SharedMemoryAsksForHugePages() &&
                      madvise(buffer.mapping_, buffer.mapping_bytes_, MADV_HUGEPAGE) == 0;
    if (!huge) buffer.backing_ = PageBacking::kSmall;
  }
  // Opened anew, so that a process that gets it can read and no more.
  buffer.shared_fd_ = open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC);
  close(fd);
  if (buffer.shared_fd_ >= 0) return buffer;
  return ResourceExhausted(
      fmt::format("cannot open shared memory for reading: {}", std::strerror(errno)));
}

Result<AlignedBuffer> AlignedBuffer::MapShared(int fd, size_t size_bytes) {
  struct stat info = {};
  if (fstat(fd, &info) != 0 || static_cast<size_t>(info.st_size) < size_bytes) {
    return FailedPrecondition(fmt::format("shared memory of {} bytes where {} are expected",
                                          static_cast<int64_t>(info.st_size), size_bytes));
  }
  // A peer that shrank the file would end us with SIGBUS.
  if ((fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK) == 0) {
    return FailedPrecondition("shared memory that is not sealed against shrinking");
  }
  AlignedBuffer buffer;
  if (size_bytes == 0) return buffer;
  buffer.size_bytes_ = size_bytes;
  buffer.mapping_bytes_ = static_cast<size_t>(info.st_size);
  buffer.mapping_ = MapFd(fd, buffer.mapping_bytes_, PROT_READ);
  if (buffer.mapping_ == nullptr) {
    return ResourceExhausted(
        fmt::format("cannot map {} bytes of shared memory: {}", size_bytes, std::strerror(errno)));
  }
  buffer.data_ = static_cast<std::byte*>(buffer.mapping_);
  if (size_bytes >= kHugePageBytes) {
    (void)madvise(buffer.mapping_, buffer.mapping_bytes_, MADV_HUGEPAGE);
  }
  Populate(buffer.mapping_, buffer.mapping_bytes_);
  return buffer;
}

void AlignedBuffer::UseHugePages() {
  if (backing_ != PageBacking::kSmall || mapping_bytes_ % kHugePageBytes != 0) return;
  if (size_bytes_ >= kHugePageBytes && shared_fd_ >= 0 && Collapse(data_, mapping_bytes_)) {
    backing_ = PageBacking::kTransparent;
  }
}

Status AlignedBuffer::BindToNuma(int node) {
  constexpr int kNodesMax = 1024;
  if (node < 0 || node >= kNodesMax) {
    return FailedPrecondition(fmt::format("NUMA node {}, must be 0..{}", node, kNodesMax - 1));
  }
  if (mapping_ == nullptr) return OkStatus();
  constexpr int kBits = 8 * sizeof(unsigned long);
  unsigned long mask[kNodesMax / kBits] = {};
  mask[node / kBits] = 1ul << (node % kBits);
  // The system call itself: all that libnuma would add is a library.
  if (syscall(SYS_mbind, mapping_, mapping_bytes_, MPOL_BIND, mask, kNodesMax, 0) == 0) {
    return OkStatus();
  }
  return FailedPrecondition(
      fmt::format("cannot bind memory to NUMA node {}: {}", node, std::strerror(errno)));
}

AlignedBuffer::~AlignedBuffer() { Release(); }

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this == &other) return *this;
  Release();
  data_ = std::exchange(other.data_, nullptr);
  size_bytes_ = std::exchange(other.size_bytes_, 0);
  mapping_ = std::exchange(other.mapping_, nullptr);
  mapping_bytes_ = std::exchange(other.mapping_bytes_, 0);
  shared_fd_ = std::exchange(other.shared_fd_, -1);
  backing_ = other.backing_;
  return *this;
}

void AlignedBuffer::Release() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
  mapping_ = nullptr;
  if (shared_fd_ >= 0) close(shared_fd_);
  shared_fd_ = -1;
}

}  // namespace engram
