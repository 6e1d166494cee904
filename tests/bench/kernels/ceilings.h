// What the machine can do at best: multiply-adds that touch no memory, and memory that is only
// read.
#pragma once

#include <cstdint>

#include "kernels/isa.h"

namespace engram::bench {

// Runs about `rounds` x 24 multiply-adds of registers with the instructions `isa` uses for bf16
// weights, or for fp32 values; returns the floating point operations done.
double RegisterPeakBf16(kernels::Isa isa, int64_t rounds);
double RegisterPeakFp32(kernels::Isa isa, int64_t rounds);
double RegisterPeakBf16Avx512(int64_t rounds);
double RegisterPeakFp32Avx512(int64_t rounds);

// Sums `bytes` (a multiple of 512) and returns something that depends on all of them. Which is
// faster, asking 4 KiB ahead or leaving that to the processor, depends on the processor.
uint64_t ReadStream(const std::byte* data, int64_t bytes, bool ask_ahead);

}  // namespace engram::bench
