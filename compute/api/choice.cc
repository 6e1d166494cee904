#include "compute/api/choice.h"

#include "common/base/check.h"

namespace engram::compute {

std::string Choice::Take(Update& update) {
  CHECK(!ended());
  cached_tokens = update.cached_tokens;
  degraded_positions = update.degraded_positions;
  const std::optional<Finish>& finish = update.finish;
  std::string certain;
  const bool hides_last = finish && request.HidesLast(finish->reason, update.tokens);
  const size_t taken = stream.AppendAll(update.tokens, hides_last, certain);
  update.tokens.resize(taken);
  completion_tokens += static_cast<int64_t>(taken);
  if (finish) certain += stream.Finish();
  if (stream.stopped()) {
    finish_reason = "stop";
  } else if (finish) {
    finish_reason = FinishReasonName(finish->reason);
  }
  return certain;
}

void Choice::Gather(const std::string& taken, const std::vector<SampledToken>& tokens) {
  text += taken;
  if (request.logprobs) logprobs.Add(tokenizer, tokens);
}

ChoicePart Choice::Whole(int64_t index) const { return {index, text, nullptr, finish_reason}; }

}  // namespace engram::compute
