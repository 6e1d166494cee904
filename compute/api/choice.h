// Builds the answer from one completion's updates: its text, the tokens that count, its figures and
// how it ended. The HTTP API and batch both use it. One thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compute/api/api_request.h"
#include "compute/api/text_stream.h"

namespace engram::compute {

struct Choice {
  // Both must outlive the choice.
  Choice(const text::Tokenizer& tokenizer, const ApiRequest& of)
      : request(of), stream(tokenizer, of.stop, of.show_stop) {}

  // Takes an update that is no error, and returns the text that has become certain. Cuts
  // `update.tokens` to those that count: none follow a stop string, after which the engine may
  // still compute until the caller cancels. Not after it has ended.
  std::string Take(Update& update);
  bool ended() const { return !finish_reason.empty(); }

  const ApiRequest& request;
  TextStream stream;
  int64_t completion_tokens = 0;
  // Up to the tokens taken, however it ends.
  int64_t cached_tokens = 0;
  int64_t degraded_positions = 0;
  std::string finish_reason;  // as FinishReasonName; "stop" after a stop string
};

}  // namespace engram::compute
