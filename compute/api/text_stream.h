// Tokens to text that can be shown at once: never part of a character, never part of a stop string.
// And where in that text each token begins.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer.h"
#include "compute/engine/completion.h"

namespace engram::compute {

class TextStream {
 public:
  // `tokenizer` must outlive the stream. Stop strings are not empty; with `show_stop` the one that
  // ends the text is part of it.
  TextStream(const text::Tokenizer& tokenizer, std::vector<std::string> stop,
             bool show_stop = false)
      : tokenizer_(tokenizer), stop_(std::move(stop)), show_stop_(show_stop) {}

  // The text that is certain after one more token: well-formed UTF-8 (what never becomes a
  // character is U+FFFD). Empty once a stop string has appeared.
  std::string Append(int32_t token);
  // Appends tokens until a stop string appears; the last one is no text with `hides_last`. Returns
  // how many were taken; what is certain is added to `text`.
  size_t AppendAll(std::span<const SampledToken> tokens, bool hides_last, std::string& text);
  // What was held back, when no more tokens come.
  std::string Finish();
  bool stopped() const { return stopped_; }  // by a stop string

 private:
  std::string Certain(const std::string& text);

  const text::Tokenizer& tokenizer_;
  const std::vector<std::string> stop_;
  const bool show_stop_;
  std::string bytes_;  // the beginning of a character
  std::string held_;   // characters that may be the beginning of a stop string
  bool stopped_ = false;
};

// Where tokens begin in the text they make, in characters of it.
class TextOffsets {
 public:
  // Of a token with these bytes: the index of the character that its first byte belongs to.
  int64_t Next(std::string_view bytes);

 private:
  std::string begun_;  // bytes of a character that more may complete
  int64_t characters_ = 0;
};

}  // namespace engram::compute
