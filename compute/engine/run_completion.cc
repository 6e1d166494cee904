#include "compute/engine/run_completion.h"

#include <iterator>
#include <memory>

namespace engram::compute {
namespace {

// Collects a request's updates on the engine's thread until the promise is kept.
struct Collector {
  Completion completion;
  std::promise<Result<Completion>> done;

  void Take(Update update) {
    std::move(update.tokens.begin(), update.tokens.end(), std::back_inserter(completion.tokens));
    if (!update.finish) return;
    completion.finish = std::move(*update.finish);
    if (completion.finish.reason == FinishReason::kError) {
      done.set_value(completion.finish.status);
    } else if (completion.finish.reason == FinishReason::kAbort) {
      done.set_value(Cancelled("the request was aborted"));
    } else {
      done.set_value(std::move(completion));
    }
  }
};

}  // namespace

std::vector<int32_t> Completion::ids() const {
  std::vector<int32_t> ids;
  for (const SampledToken& token : tokens) ids.push_back(token.token);
  return ids;
}

std::vector<float> Completion::logprobs() const {
  std::vector<float> values;
  for (const SampledToken& token : tokens) values.push_back(token.logprob);
  return values;
}

std::future<Result<Completion>> StartCompletion(CompletionEngine& engine,
                                                CompletionRequest request) {
  auto collector = std::make_shared<Collector>();
  auto future = collector->done.get_future();
  const Result<uint64_t> id = engine.Submit(
      std::move(request), [collector](Update update) { collector->Take(std::move(update)); });
  if (!id.ok()) collector->done.set_value(id.status());
  return future;
}

Result<Completion> RunCompletion(CompletionEngine& engine, CompletionRequest request) {
  return StartCompletion(engine, std::move(request)).get();
}

}  // namespace engram::compute
