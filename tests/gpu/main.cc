// engram-gpu-check: every Engram operation on the GPU against the reference, then how fast each is.
//   engram-gpu-check [REPORT]     exit code 0: all agree; 1: one does not; 77: there is no GPU
#include <fmt/format.h>

#include <cstdio>
#include <fstream>

#include "tests/gpu/cases.h"
#include "tests/gpu/timing.h"

int main(int argc, char** argv) {
  using namespace engram;
  const auto provider = kernels::OpenCudaProvider();
  if (!provider.ok()) {
    fmt::print(stderr, "engram-gpu-check: {}\n", provider.status().message());
    return 77;
  }
  std::string report = fmt::format("device: {}\n\n", (*provider)->name());
  int failed = 0;
  for (const kernels::CaseResult& result : kernels::CompareWithCpu(**provider)) {
    failed += result.status.ok() ? 0 : 1;
    report += fmt::format("{:40} {}\n", result.name,
                          result.status.ok() ? "agrees" : result.status.message());
  }
  const Result<std::string> timing = kernels::TimeCudaKernels();
  if (!timing.ok()) ++failed;
  report += "\n" + (timing.ok() ? *timing : timing.status().message() + "\n");
  fmt::print("{}", report);
  if (argc > 1) std::ofstream(argv[1]) << report;
  return failed == 0 ? 0 : 1;
}
