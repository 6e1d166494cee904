// The load of `engram-compute bench`: requests at the times they are due, and what became of each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "compute/engine/completion.h"

namespace engram::compute {

struct LengthRange {
  int64_t min = 128;
  int64_t max = 128;
  int64_t Draw(Rng& rng) const;
};
// "128" or "64:512". INVALID_ARGUMENT names the text.
Result<LengthRange> ParseLengths(const std::string& text);

struct RequestLoad {
  double rate = 0;          // requests a second, Poisson arrivals; 0: closed loop
  int64_t concurrency = 1;  // of the closed loop
  int64_t requests = 32;
  LengthRange prompt, output;
  uint64_t seed = 1;
  std::vector<int32_t> text;  // prompts are pieces of it; empty: random ids
};

// One request, times in nanoseconds since the load began.
struct RequestRecord {
  int64_t due_ns = 0;
  std::vector<int64_t> token_ns;  // when each token came
  std::vector<int32_t> tokens;
  int64_t prompt_tokens = 0;
  Status status;
};

struct LoadResult {
  std::vector<RequestRecord> requests;
  EngineSnapshot before, after;
  double seconds = 0;
};

// When the n-th request is due: exponential gaps of mean 1 / rate, from the seed alone.
std::vector<int64_t> ArrivalsNs(double rate, int64_t requests, uint64_t seed);
// The prompts and lengths of a load, from the seed alone.
std::vector<CompletionRequest> MakeRequests(const RequestLoad& options, int64_t vocab_size);

// Runs the load to its end. A refused request is a record with its status.
LoadResult RunLoad(CompletionEngine& engine, const RequestLoad& options, int64_t vocab_size);

}  // namespace engram::compute
