// Several requests run to their ends, as far together as the engine lets them.
#pragma once

#include <utility>
#include <vector>

#include "compute/engine/run_completion.h"

namespace engram::compute {

// Submits all and waits for all, in order.
inline std::vector<Result<Completion>> RunCompletions(CompletionEngine& engine,
                                                      std::vector<CompletionRequest> requests) {
  std::vector<std::future<Result<Completion>>> futures;
  for (CompletionRequest& request : requests) {
    futures.push_back(StartCompletion(engine, std::move(request)));
  }
  std::vector<Result<Completion>> results;
  for (auto& future : futures) results.push_back(future.get());
  return results;
}

}  // namespace engram::compute
