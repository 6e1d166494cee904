// Builds the answer from one completion's updates: its text, the tokens that count, its figures and
// how it ended. The HTTP API and batch both use it. One thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compute/api/answer_json.h"
#include "compute/api/api_request.h"
#include "compute/api/text_stream.h"

namespace engram::compute {

struct Choice {
  // Both must outlive the choice.
  Choice(const text::Tokenizer& of_tokenizer, const ApiRequest& of)
      : request(of),
        tokenizer(of_tokenizer),
        stream(of_tokenizer, of.stop, of.show_stop),
        logprobs(of.chat) {}

  // Takes an update that is no error, and returns the text that has become certain. Cuts
  // `update.tokens` to those that count: none follow a stop string, after which the engine may
  // still compute until the caller cancels. Not after it has ended.
  std::string Take(Update& update);
  // Adds what Take gave to the answer that is sent whole.
  void Gather(const std::string& taken, const std::vector<SampledToken>& tokens);
  // Of the answer that is sent whole; `index` is its number among the request's choices. Its
  // log-probabilities are told apart (AnswerText), "" when they were not asked for.
  ChoicePart Whole(int64_t index) const;
  std::string TakeLogprobs() { return request.logprobs ? logprobs.Finish() : std::string(); }
  bool ended() const { return !finish_reason.empty(); }

  const ApiRequest& request;
  const text::Tokenizer& tokenizer;
  TextStream stream;
  uint64_t engine_id = 0;  // 0: the engine has not accepted it
  int64_t completion_tokens = 0;
  // Up to the tokens taken, however it ends.
  int64_t cached_tokens = 0;
  int64_t degraded_positions = 0;
  std::string finish_reason;  // as FinishReasonName; "stop" after a stop string
  std::string text;           // gathered
  LogprobsText logprobs;      // gathered
};

}  // namespace engram::compute
