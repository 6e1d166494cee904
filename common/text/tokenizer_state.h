// What a loaded Tokenizer knows. Private to tokenizer.cc and tokenizer_loader.cc.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/text/added_tokens.h"
#include "common/text/bpe.h"
#include "common/text/pretokenizer.h"
#include "common/text/tokenizer.h"

namespace engram::text {

struct Tokenizer::State {
  struct Token {
    std::string spelling;  // as the vocabulary writes it
    std::string bytes;     // what it decodes to
  };

  explicit State(PreTokenizer splitter) : pre_tokenizer(std::move(splitter)) {}
  // What the normalizer makes of a text; bytes that are not UTF-8 stay.
  Result<std::string> Normalize(std::string_view text) const;
  // Normalised text without added tokens.
  Status EncodeOrdinary(std::string_view text, std::vector<int32_t>& ids) const;
  // Encodes up to the last added token; what follows is left in `ordinary`, normalised, where what
  // came before is at the call.
  Status EncodeAddedTokens(std::string_view text, std::string& ordinary,
                           std::vector<int32_t>& ids) const;
  // The second half of that: a text without tokens of `verbatim_tokens`.
  Status EncodeNormalizedTokens(std::string_view text, std::string& ordinary,
                                std::vector<int32_t>& ids) const;
  Status EmitAddedToken(int32_t id, std::string& ordinary, std::vector<int32_t>& ids) const;

  PreTokenizer pre_tokenizer;
  BytePairMerger merger;
  std::vector<Token> tokens;   // by id
  size_t token_bytes_max = 1;  // of text that one token can stand for
  std::unordered_map<std::string, int32_t> id_of_spelling;
  bool nfc = false;               // the normalizer; else there is none
  AddedTokens verbatim_tokens;    // looked for first, in the text as it comes
  AddedTokens normalized_tokens;  // then, in what the normalizer makes of the rest
  std::unordered_map<std::string, int32_t> id_of_word;  // "ignore_merges": by bytes; else empty
};

}  // namespace engram::text
