// A request run to its end by a thread that waits for it: for commands and tests.
#pragma once

#include <future>
#include <vector>

#include "compute/engine/completion.h"

namespace engram::compute {

struct Completion {
  std::vector<SampledToken> tokens;
  Finish finish;  // never kError or kAbort

  std::vector<int32_t> ids() const;
  std::vector<float> logprobs() const;
};

// Submits. The error is that of Submit or of the finish; CANCELLED when it was aborted.
std::future<Result<Completion>> StartCompletion(CompletionEngine& engine,
                                                CompletionRequest request);
// Submits and waits.
Result<Completion> RunCompletion(CompletionEngine& engine, CompletionRequest request);

}  // namespace engram::compute
