// The comparison: our node and the peers, filled with the same rows, asked for the same batches in
// interleaved rounds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

struct CompareOptions {
  uint64_t rows = 2'000'000;  // about: the layout's primes decide
  uint64_t seed = 1;
  std::vector<size_t> batches = {48, 3072};
  size_t depth = 1;
  size_t verify_every = 64;
  RoundOptions rounds;
  Cores cores;
  std::vector<std::string> only;  // names of legs; empty: all
  std::string transport = "tcp";  // of ours
  std::string json_file;
};

// Prints settings and the table; writes the JSON file if one is named.
Status Compare(const CompareOptions& options);

}  // namespace engram::bench
