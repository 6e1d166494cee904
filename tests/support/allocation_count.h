// Counts what a test program allocates, all threads together: link allocation_count.cc, which
// replaces operator new, to let a test say that something allocates nothing.
#pragma once

#include <cstdint>

namespace engram::testing_support {

uint64_t AllocationCount();        // since the program began
uint64_t ThreadAllocationCount();  // of the calling thread

}  // namespace engram::testing_support
