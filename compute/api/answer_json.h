// The JSON of answers, whole and in pieces.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/io/json.h"
#include "common/text/tokenizer.h"
#include "compute/api/text_stream.h"
#include "compute/engine/completion.h"

namespace engram::compute {

// What every answer of one request begins with.
struct AnswerHead {
  std::string id;  // "cmpl-..." or "chatcmpl-..."
  std::string model;
  int64_t created = 0;  // Unix seconds
  bool chat = false;
  json::value seed;  // with which the request can be repeated
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
};
json::object UsageJson(const Usage& usage);

// One choice of a whole answer, or what is new of it in a stream.
struct ChoicePart {
  int64_t index = 0;
  std::string text;
  const std::vector<SampledToken>* logprobs = nullptr;  // null: not asked for
  std::optional<std::string_view> finish_reason;
  bool first = false;        // of a stream: says the role
  TextOffsets offsets = {};  // after the tokens before these; completions' logprobs say offsets
};

// With `whole`, "chat.completion" / "text_completion" with messages; else a stream's chunk.
json::object AnswerJson(const AnswerHead& head, const text::Tokenizer& tokenizer,
                        const std::vector<ChoicePart>& choices, bool whole);

// The log-probabilities of one choice of a whole answer, written while its tokens come. Made at the
// end they would hold up the thread of all answers: 0.9 s for 25,600 tokens with 20 likely ones.
class LogprobsText {
 public:
  explicit LogprobsText(bool chat) : chat_(chat) {}
  void Add(const text::Tokenizer& tokenizer, std::span<const SampledToken> tokens);
  // The JSON object; nothing is added afterwards.
  std::string Finish();

 private:
  bool chat_;
  TextOffsets offsets_;
  std::array<std::string, 4> lists_;  // of completions; a chat's content is the first
};

// The text of `answer`, in which choice n has the log-probabilities `logprobs[n]`, JSON itself, or
// null where that is empty. The library has no value that is text already.
std::string AnswerText(const json::object& answer, std::span<const std::string> logprobs);

// Bytes of one token by itself; none when the tokenizer does not know it.
std::string TokenBytes(const text::Tokenizer& tokenizer, int32_t token);

// {"running":...,...}: every field of the snapshot under its own name.
json::object SnapshotJson(const EngineSnapshot& snapshot);

// "data: ...\n\n"
std::string ServerSentEvent(const json::object& data);

}  // namespace engram::compute
