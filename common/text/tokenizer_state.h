// What a loaded Tokenizer knows. Private to tokenizer.cc and tokenizer_loader.cc.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/text/bpe.h"
#include "common/text/pretokenizer.h"
#include "common/text/tokenizer.h"

namespace engram::text {

struct AddedToken {
  std::string content;
  int32_t id = 0;
};

struct Tokenizer::State {
  struct Token {
    std::string spelling;  // as the vocabulary writes it
    std::string bytes;     // what it decodes to
  };

  explicit State(PreTokenizer splitter) : pre_tokenizer(std::move(splitter)) {}
  const AddedToken* AddedTokenAt(std::string_view text, size_t offset) const;
  Status EncodeOrdinary(std::string_view text, std::vector<int32_t>& ids) const;
  // Encodes up to the last added token; what follows is left in `ordinary`, where what came before
  // is at the call.
  Status EncodeAddedTokens(std::string_view text, std::string& ordinary,
                           std::vector<int32_t>& ids) const;

  PreTokenizer pre_tokenizer;
  BytePairMerger merger;
  std::vector<Token> tokens;  // by id
  size_t token_bytes_max = 1;
  std::unordered_map<std::string, int32_t> id_of_spelling;
  std::array<std::vector<AddedToken>, 256> added_by_first_byte;  // longest first
};

}  // namespace engram::text
