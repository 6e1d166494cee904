#include "common/base/buffer.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace engram {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kSmallPageBytes = 4096;

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void* Map(size_t size_bytes, int extra_flags) {
  void* p = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

}  // namespace

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

AlignedBuffer::~AlignedBuffer() { Release(); }

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this == &other) return *this;
  Release();
  data_ = std::exchange(other.data_, nullptr);
  size_bytes_ = std::exchange(other.size_bytes_, 0);
  mapping_ = std::exchange(other.mapping_, nullptr);
  mapping_bytes_ = std::exchange(other.mapping_bytes_, 0);
  backing_ = other.backing_;
  return *this;
}

void AlignedBuffer::Release() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
  mapping_ = nullptr;
}

}  // namespace engram
