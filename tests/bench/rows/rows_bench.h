// Our paths beside their ceilings, in interleaved rounds of one run, and the ratios by which they
// are judged.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

struct RowsOptions {
  uint64_t table_mib = 2048;  // rows, without checks; held once or twice
  uint64_t seed = 1;
  size_t step_rows = 3072;  // 64 tokens
  size_t token_rows = 48;   // one token
  size_t depth = 1;         // steps outstanding
  size_t verify_every = 1024;
  RoundOptions rounds;
  Cores cores;
  std::string transport = "tcp";    // of the service
  bool ucx_perftest = true;         // when it is installed
  std::vector<uint64_t> sweep_mib;  // table sizes to compare; empty: no sweep
  bool shapes = false;              // rows of three sizes in batches of three sizes
  std::vector<std::string> legs;    // only those whose names hold one of these; empty: all
  std::string json_file;
};

// Prints the tables; writes the JSON file if one is named. FAILED_PRECONDITION, at the end, when a
// leg is faster than its ceiling (harness/ceilings.h).
Status RunRowsBench(const RowsOptions& options);

}  // namespace engram::bench
