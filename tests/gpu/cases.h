// Seeded inputs for every Engram operation, and the comparison of a provider with the CPU's.
#pragma once

#include <string>
#include <vector>

#include "kernels/provider.h"

namespace engram::kernels {

struct CaseResult {
  std::string name;
  Status status;  // of the call; or what differed, where and by how much
};

// Every operation on several shapes, odd ones among them, dead positions and history included.
std::vector<CaseResult> CompareWithCpu(EngramProvider& provider);

}  // namespace engram::kernels
