// Fuzzes the bodies of the API's requests: whatever is accepted can be asked of the engine.
//
// Input: 'c' a completion, 'm' a chat, 't' a tokenize or 'd' a detokenize request's body; 's' bytes
// of tokens, which are streamed as text with a stop string.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "common/base/check.h"
#include "common/text/bpe_trainer.h"
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"
#include "compute/api/api_request.h"
#include "compute/api/text_stream.h"
#include "tests/compute/api/tiny_tokenizer.h"

namespace {

using namespace engram;
using namespace engram::compute;

const ApiModel& Model() {
  static const text::Tokenizer tokenizer = TinyTokenizer();
  static const ApiModel model{
      "tiny", &tokenizer, ChatTemplate::kDeepseek, tokenizer.vocab_size(), 1000, 4, {}};
  return model;
}

void CheckError(const ApiError& error) {
  CHECK(error.status >= 400 && error.status < 500) << error.status;
  CHECK(!error.message.empty());
  CHECK(text::ValidUtf8Prefix(error.message) == error.message.size()) << "not UTF-8";
  CHECK(!ErrorResponse(error).body.empty());
}

void CheckRequest(const ApiError& error, const ApiRequest& request) {
  if (!error.ok()) return CheckError(error);
  CHECK(!request.prompts.empty() && request.prompts.size() <= 4);
  CHECK(request.completion.sampling.Check(Model().vocab_size).ok());
  CHECK_GE(request.completion.tokens_max, 1);
  for (const auto& prompt : request.prompts) {
    CHECK(!prompt.empty());
    CHECK_LE(static_cast<int64_t>(prompt.size()) + request.completion.tokens_max, 1000);
    for (const int32_t id : prompt) CHECK(id >= 0 && id < Model().vocab_size) << id;
  }
  CHECK(request.stop.size() <= kStopStringsMax);
}

// The template's markers are no tokens of this tokenizer, so that its one special token could only
// come from a message.
void CheckChat(const ApiError& error, const ApiRequest& request) {
  CheckRequest(error, request);
  if (!error.ok()) return;
  for (const int32_t id : request.prompts[0]) CHECK_NE(id, 0) << "a message became <eos>";
}

void CheckIds(const ApiError& error) {
  if (!error.ok()) CheckError(error);
}

void CheckStream(std::string_view ids) {
  TextStream stream(*Model().tokenizer, {"ab", "the"});
  std::string out;
  for (const char id : ids) out += stream.Append(static_cast<unsigned char>(id));
  out += stream.Finish();
  CHECK(text::ValidUtf8Prefix(out) == out.size());
  CHECK(out.find("ab") == std::string::npos && out.find("the") == std::string::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  ApiRequest request;
  std::vector<int32_t> ids;
  switch (data[0]) {
    case 'c':
      CheckRequest(ParseCompletion(rest, Model(), request), request);
      break;
    case 'm':
      CheckChat(ParseChat(rest, Model(), request), request);
      break;
    case 't':
      CheckIds(ParseTokenize(rest, Model(), ids));
      break;
    case 'd':
      CheckIds(ParseDetokenize(rest, Model(), ids));
      break;
    case 's':
      CheckStream(rest);
      break;
    default:
      break;
  }
  return 0;
}
