// Finds a tokenizer's added tokens in a text, as Hugging Face's tokenizers do. Immutable once all
// are added; any thread may use it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace engram::text {

struct AddedToken {
  std::string content;  // not empty
  int32_t id = 0;
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool single_word = false;  // only where no word character touches it
};

class AddedTokens {
 public:
  void Add(AddedToken token);

  struct Match {
    size_t begin = 0;  // with the white space it takes
    size_t end = 0;
    int32_t id = 0;
  };
  // Leftmost first, of those that begin together the longest: found before white space and
  // neighbours are looked at, so that a longest one that is no single word hides the shorter ones
  // inside it. A match may begin before the end of the one before: a token of white space that
  // stands in what that one took is found nevertheless.
  std::vector<Match> FindAll(std::string_view text) const;

 private:
  const AddedToken* FindAt(std::string_view text) const;
  std::array<std::vector<AddedToken>, 256> by_first_byte_;  // longest first
};

}  // namespace engram::text
