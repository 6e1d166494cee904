#include "compute/api/choice.h"

#include "common/base/check.h"

namespace engram::compute {

std::string Choice::Take(Update& update) {
  CHECK(!ended());
  cached_tokens = update.cached_tokens;
  degraded_positions = update.degraded_positions;
  const std::optional<Finish>& finish = update.finish;
  std::string text;
  const bool hides_last = finish && request.HidesLast(finish->reason, update.tokens);
  const size_t taken = stream.AppendAll(update.tokens, hides_last, text);
  update.tokens.resize(taken);
  completion_tokens += static_cast<int64_t>(taken);
  if (finish) text += stream.Finish();
  if (stream.stopped()) {
    finish_reason = "stop";
  } else if (finish) {
    finish_reason = FinishReasonName(finish->reason);
  }
  return text;
}

}  // namespace engram::compute
