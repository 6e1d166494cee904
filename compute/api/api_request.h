// The bodies of /v1/completions and /v1/chat/completions as what the engine is asked.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer.h"
#include "compute/api/api_error.h"
#include "compute/api/chat_template.h"
#include "compute/engine/completion.h"
#include "compute/memory/tables_info.h"

namespace engram::compute {

// What requests are read against.
struct ApiModel {
  std::string name;  // as clients must call it
  const text::Tokenizer* tokenizer = nullptr;
  ChatTemplate chat_template = ChatTemplate::kDeepseek;
  int64_t vocab_size = 0;
  int64_t positions_max = 0;
  int64_t prompts_max = 64;  // of one request
  bool allow_unknown_fields = false;
  TablesInfo tables = {};  // shown by /version and /metrics
};

struct ApiRequest {
  bool chat = false;
  std::vector<std::vector<int32_t>> prompts;  // one choice each, in order
  CompletionRequest completion;               // of each prompt, which is not filled in
  std::vector<std::string> stop;
  bool show_stop = false;  // what ended it, a stop string or id, is part of the text
  json::value seed;        // as the client said it, or as drawn
  bool logprobs = false;
  bool stream = false;
  bool include_usage = false;               // in a stream
  std::vector<std::string> unknown_fields;  // ignored, as the model allows

  // Whether the last of a request's tokens is no part of its text.
  bool HidesLast(FinishReason reason, std::span<const SampledToken> tokens) const;
};

inline constexpr size_t kStopStringsMax = 4;
inline constexpr size_t kStopBytesMax = 1024;
inline constexpr size_t kStopIdsMax = 64;

// The four fill in what they are given last, which is new; of no use after an error.
//
// A prompt's text is rendered by the client: added tokens that it spells become their ids. What
// messages say is only text (RenderChat).
ApiError ParseCompletion(std::string_view body, const ApiModel& model, ApiRequest& request);
ApiError ParseChat(std::string_view body, const ApiModel& model, ApiRequest& request);
// {"prompt": text} or {"messages": [...]} for /tokenize: the tokens that /v1/completions or
// /v1/chat/completions would give the engine.
ApiError ParseTokenize(std::string_view body, const ApiModel& model, std::vector<int32_t>& ids);
// {"tokens": [...]} for /detokenize.
ApiError ParseDetokenize(std::string_view body, const ApiModel& model, std::vector<int32_t>& ids);

}  // namespace engram::compute
