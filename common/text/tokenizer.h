// Byte-level BPE from a Hugging Face tokenizer.json: no normalizer or NFC, Sequence of Split
// regexes (by PCRE2) and ByteLevel, BPE merges, added and special tokens. Immutable after load; any
// thread may use it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace engram::text {

// A piece of a text that is put together from pieces of ours and of others'.
struct TextPart {
  std::string text;
  bool added_tokens = false;  // those in it become their ids; else they are text like any other
};

class Tokenizer {
 public:
  struct State;  // tokenizer_state.h, for the loader
  // INVALID_ARGUMENT names the file and the feature of tokenizer.json that is not supported.
  static Result<Tokenizer> Load(const std::string& tokenizer_json_path);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Added tokens in the text become their ids: first those with "normalized": false, then, in what
  // the normalizer makes of each piece between, the others. No BOS or EOS is added. Bytes that are
  // not UTF-8 become one byte token each, so Decode(Encode(x)) == x for any x, unless there is a
  // normalizer or an added token that strips or is spelled in letters of the byte alphabet.
  Result<std::vector<int32_t>> Encode(std::string_view utf8) const;
  // The parts' concatenation, in which an added token counts only where it lies inside one part
  // with `added_tokens` (its neighbours there are what "single_word" looks at); each part is
  // normalised by itself, words and merges run across borders. "special" in tokenizer.json makes no
  // difference: DeepSeek's has it false for <｜User｜> and <｜Assistant｜>, so that recognising
  // what is not special would let any user's text begin a turn.
  Result<std::vector<int32_t>> EncodeParts(std::span<const TextPart> parts) const;
  // Bytes of the ids, concatenated; special tokens kept. Added tokens go through the ByteLevel
  // decoder as all do: what is spelled in letters of the byte alphabet alone is those bytes ("õ" is
  // 0xf5), anything else itself. May end inside a UTF-8 sequence. OUT_OF_RANGE names the id.
  Result<std::string> Decode(std::span<const int32_t> ids) const;
  // The token in the vocabulary's own (byte-level) spelling.
  Result<std::string> RawToken(int32_t id) const;
  int32_t vocab_size() const;  // len(tokenizer): added tokens included
  // Of text that one token can stand for: N bytes of text are at least N / token_bytes_max()
  // tokens.
  size_t token_bytes_max() const;

 private:
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Invalid or cut-off UTF-8 becomes U+FFFD (one per maximal subpart), as tokenizers' decode does.
std::string ReplaceInvalidUtf8(std::string_view bytes);

}  // namespace engram::text
