// What the disk gives, by fio's word: the ceilings of the benchmarks that read or write files.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"

namespace engram::bench {

struct FioJob {
  std::string rw = "randread";    // or read, write
  std::string engine = "libaio";  // or psync
  uint64_t block_bytes = 4096;
  int depth = 1;  // of libaio's queue, or threads of psync
  double seconds = 1;
};

struct FioResult {
  double iops = 0;
  double bytes_per_s = 0;
};

// Runs fio past the page cache on `file`, which it lays out with `file_bytes` where it is smaller.
// NOT_FOUND: it is not installed.
Result<FioResult> RunFio(const FioJob& job, const std::string& file, uint64_t file_bytes);

}  // namespace engram::bench
