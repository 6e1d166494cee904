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
  // The leftmost match, and of those that begin together the longest. White space and neighbours
  // are checked afterwards, so that a longest match that is no single word hides the shorter ones
  // inside it. A token of white space inside what the previous match took is found all the same.
  std::vector<Match> FindAll(std::string_view text) const;

 private:
  const AddedToken* FindAt(std::string_view text) const;
  std::array<std::vector<AddedToken>, 256> by_first_byte_;  // longest first
};

}  // namespace engram::text
