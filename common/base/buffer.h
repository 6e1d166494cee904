// AlignedBuffer: owning, zero-filled, page-backed memory. Small buffers are 64-byte aligned;
// buffers of 2 MiB and more are 2 MiB aligned and, when the kernel allows, backed by huge pages
// (hugetlbfs first when asked for, else madvise). Move-only; one owner.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "common/base/status.h"

namespace engram {

enum class PageBacking {
  kSmall,        // ordinary pages
  kTransparent,  // madvise(MADV_HUGEPAGE)
  kHugeTlb,      // reserved 2 MiB pages, falling back to kTransparent when none are reserved
};

std::string_view PageBackingName(PageBacking backing);

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // RESOURCE_EXHAUSTED when the kernel refuses the memory.
  static Result<AlignedBuffer> Allocate(size_t size_bytes, PageBacking wanted);
  // Memory another process can map: sealed in size, shared by shared_fd(). In small pages until
  // UseHugePages, unless there are reserved huge ones or shared memory gets them by itself.
  static Result<AlignedBuffer> AllocateShared(size_t size_bytes, PageBacking wanted);
  // The other side: maps `size_bytes` of `fd` for reading; the data is const in all but type.
  // FAILED_PRECONDITION when the memory is smaller, or its size is not sealed.
  static Result<AlignedBuffer> MapShared(int fd, size_t size_bytes);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
  // Of AllocateShared, for reading only: what to send to the process that maps it; else -1.
  int shared_fd() const { return shared_fd_; }
  // Of AllocateShared, after BindToNuma and before the memory is filled: asks the kernel to put it
  // into huge pages now, which takes 2 to 3 s a GiB. backing() says whether all of it is.
  void UseHugePages();
  // Binds the pages not touched yet to a NUMA node. FAILED_PRECONDITION when there is no such node.
  Status BindToNuma(int node);
  // What was obtained, which may be less than what was wanted.
  PageBacking backing() const { return backing_; }
  std::span<std::byte> bytes() { return {data_, size_bytes_}; }
  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }

 private:
  void Release();
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  void* mapping_ = nullptr;  // what munmap gets; data_ lies inside, aligned
  size_t mapping_bytes_ = 0;
  int shared_fd_ = -1;
  PageBacking backing_ = PageBacking::kSmall;
};

// Whether the kernel gives unreserved huge pages to shared memory: when it asks for them
// (/sys/kernel/mm/transparent_hugepage/shmem_enabled, "never" by default), or when they are made of
// its small ones (MADV_COLLAPSE, Linux 6.1). Tried once on 2 MiB.
bool SharedHugePages();

}  // namespace engram
