// What the machine can do at best: multiply-adds that touch no memory, and memory that is only
// read.
#pragma once

#include <cstdint>

#include "kernels/isa.h"

namespace engram::bench {

// Runs about `rounds` x 24 multiply-adds of registers with the instructions `isa` uses for bf16
// weights; returns the floating point operations done (2 a multiply-add of bf16 pairs counts 2).
double RegisterPeak(kernels::Isa isa, int64_t rounds);
double RegisterPeakAvx512(int64_t rounds);

// Sums `bytes` (a multiple of 512) and returns something that depends on all of them. Which is
// faster, asking 4 KiB ahead or leaving that to the processor, depends on the processor.
uint64_t ReadStream(const std::byte* data, int64_t bytes, bool ask_ahead);

}  // namespace engram::bench
