// How fast the CUDA kernels are, beside a copy on the device in the same run.
#pragma once

#include <string>

#include "common/base/status.h"

namespace engram::kernels {

// A line an operation: microseconds (median, min..max of rounds), GB/s read and written, share of
// what a copy gives.
Result<std::string> TimeCudaKernels();

}  // namespace engram::kernels
