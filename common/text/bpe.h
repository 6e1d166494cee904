// Byte-pair merging of one word: the lowest-ranked adjacent pair first, leftmost among equals.
// O(n log n) in the word's length, so one huge word is as fine as many small ones.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace engram::text {

class BytePairMerger {
 public:
  // The token of each single byte.
  void SetByteToken(uint8_t byte, int32_t id) { byte_tokens_[byte] = id; }
  int32_t byte_token(uint8_t byte) const { return byte_tokens_[byte]; }
  // `left` and `right` become `merged`; a lower rank goes first. False when the pair has a rank.
  bool AddMerge(int32_t left, int32_t right, int32_t merged, int32_t rank);

  // Appends the tokens of `word`.
  void Encode(std::string_view word, std::vector<int32_t>& tokens) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t merged = 0;
  };
  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  const Merge* Find(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_tokens_{};
  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace engram::text
