// The "pre_tokenizer" of tokenizer.json: text to words by a sequence of regular expressions. The
// only user of PCRE2. Immutable; any thread may use it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"

namespace engram::text {

class PreTokenizer {
 public:
  // `value`: ByteLevel, Split, or a Sequence of them. INVALID_ARGUMENT names `what` and the part
  // that is not supported.
  static Result<PreTokenizer> FromJson(const json::value& value, const std::string& what);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Words of well-formed UTF-8; concatenated they are the text. RESOURCE_EXHAUSTED when a pattern
  // passes its match limit on this text.
  Result<std::vector<std::string_view>> Split(std::string_view utf8) const;

 private:
  class Pattern;
  PreTokenizer();
  Status AddStep(const json::object& step, const std::string& what);
  Status AddPattern(const std::string& pattern, bool literal, const std::string& what);
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

// DeepSeek-V3's pre_tokenizer, as its tokenizer.json has it.
json::value DeepSeekPreTokenizer();

}  // namespace engram::text
