// `engram-compute bench`: loads the engine in this process and says how fast it answers.
#pragma once

#include <string>
#include <vector>

#include "common/base/status.h"
#include "compute/parallel/collective.h"
#include "compute/session/config.h"

namespace engram::compute {

struct BenchOptions {
  std::vector<double> rates;           // requests a second, one load each; empty: closed loops
  std::vector<int64_t> concurrencies;  // of the closed loops; empty: 1
  int64_t requests = 32;               // of each load
  std::string prompt_tokens = "128";
  std::string output_tokens = "64";
  // Closed loops of one request, one for each length of prompt: how decode and prompts fare as
  // contexts grow.
  std::vector<int64_t> contexts;
  std::string text_file;  // prompts are pieces of it; empty: random ids
  uint64_t seed = 1;
  // "local,remote": the closed loops alternate between the tables in this process and the memory
  // nodes, which answers must be the same tokens; prints the ratio of each round.
  std::string compare;
  int64_t rounds = 5;
  std::string json_file;
};

Status RunBench(const ComputeConfig& config, const BenchOptions& options,
                parallel::Collective& ranks = parallel::Solo());

}  // namespace engram::compute
