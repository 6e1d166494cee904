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
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
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
  PageBacking backing_ = PageBacking::kSmall;
};

}  // namespace engram
