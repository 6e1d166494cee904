// Tokenizer compression: raw id -> compressed id, stored beside the checkpoint as
// engram_token_map.bin (int32 little-endian, one per raw id).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace engram::table {

class VocabMap {
 public:
  // Reads the file; it must hold exactly `raw_vocab_size` entries (0 = any), be dense (its values
  // are 0..V'-1, each first used in order) and have V' == `compressed_vocab_size` (0 = any).
  static Result<VocabMap> Load(const std::string& path, uint64_t raw_vocab_size,
                               uint64_t compressed_vocab_size);
  // From (decoded text, raw token string) per raw id, in id order.
  struct TokenText {
    std::string decoded;    // decode of the single id, special tokens kept; may hold U+FFFD
    std::string raw_token;  // its form in the vocabulary
  };
  static Result<VocabMap> Build(std::span<const TokenText> tokens);
  Status Save(const std::string& path) const;

  uint64_t raw_size() const { return map_.size(); }
  uint64_t compressed_size() const { return compressed_size_; }
  // OUT_OF_RANGE for an id outside [0, raw_size()).
  Result<int64_t> Compress(int64_t raw_id) const;

 private:
  std::vector<int32_t> map_;
  uint64_t compressed_size_ = 0;
};

// NFKC, NFD, strip marks, lower-case, collapse and trim white space, by ICU. UTF-8 in and out; the
// key of a token is this, or the text itself when this is empty.
Result<std::string> NormalizeTokenText(std::string_view utf8);

}  // namespace engram::table
