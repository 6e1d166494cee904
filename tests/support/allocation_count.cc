#include "tests/support/allocation_count.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<uint64_t> allocations = 0;
thread_local uint64_t own_allocations = 0;

void* Counted(void* memory) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  ++own_allocations;
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

namespace engram::testing_support {

uint64_t AllocationCount() { return allocations.load(std::memory_order_relaxed); }
uint64_t ThreadAllocationCount() { return own_allocations; }

}  // namespace engram::testing_support

void* operator new(size_t size_bytes) { return Counted(std::malloc(size_bytes)); }
// std::stable_sort's; the sanitizer has its own otherwise.
void* operator new(size_t size_bytes, const std::nothrow_t&) noexcept {
  return Counted(std::malloc(size_bytes));
}
void* operator new(size_t size_bytes, std::align_val_t alignment) {
  const auto unit = static_cast<size_t>(alignment);
  return Counted(std::aligned_alloc(unit, (size_bytes + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
