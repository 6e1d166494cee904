// A request run to its end by a thread that waits for it: for commands and tests.
#pragma once

#include <vector>

#include "compute/engine/completion.h"

namespace engram::compute {

struct Completion {
  std::vector<SampledToken> tokens;
  Finish finish;  // never kError or kAbort

  std::vector<int32_t> ids() const;
  std::vector<float> logprobs() const;
};

// Submits and waits. The error is that of Submit or of the finish; CANCELLED when it was aborted.
Result<Completion> RunCompletion(CompletionEngine& engine, CompletionRequest request);

// Submits all and waits for all, in order; they run together as far as the engine lets them.
std::vector<Result<Completion>> RunCompletions(CompletionEngine& engine,
                                               std::vector<CompletionRequest> requests);

}  // namespace engram::compute
