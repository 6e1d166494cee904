// A hot set: the n-grams of a corpus that occurred most often, and how often. Written by engramctl
// hotset, read by memory nodes, which keep the rows of these n-grams in memory.
//
// It holds n-grams and not rows: one n-gram is heads_per_order rows in every Engram layer, and the
// same file serves tables of any size and seed made for the same tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/identity.h"
#include "common/table/vocab_map.h"

namespace engram::table {

inline constexpr uint32_t kHotSetFormat = 1;
inline constexpr size_t kHotSetCorpusBytesMax = 4096;
inline constexpr uint64_t kHotSetNgramsMax = uint64_t{1} << 27;  // of all orders together

struct HotSet {
  uint32_t max_ngram_size = 0;  // N
  uint64_t compressed_vocab_size = 0;
  int64_t pad_compressed = 0;
  std::string token_map_digest;  // TokenMapDigest, or empty: not known
  std::string corpus;            // what was counted, in words
  uint64_t tokens_counted = 0;

  // N-grams of n tokens, the most frequent first.
  struct Order {
    std::vector<uint32_t> ids;     // [count, n] compressed, oldest first; pad before a text's start
    std::vector<uint64_t> counts;  // [count], never 0, never rising
    bool operator==(const Order&) const = default;
  };
  std::vector<Order> orders;  // [N - 1]: of n = 2..N

  bool operator==(const HotSet&) const = default;
};

// NOT_FOUND; DATA_LOSS names the file and what is wrong with it; FAILED_PRECONDITION: written by
// another format version.
Result<HotSet> ReadHotSet(const std::string& path);
// Replaces the file in one step. INVALID_ARGUMENT: not a valid hot set.
Status WriteHotSet(const std::string& path, const HotSet& hot_set);

// SHA-256 (hex) of the map as engram_token_map.bin holds it.
std::string TokenMapDigest(const VocabMap& map);

struct RowOf {
  uint32_t layer_index = 0;
  uint64_t row = 0;
  auto operator<=>(const RowOf&) const = default;
};

// The rows of the n-grams, at most `rows_max`, the most wanted first: n-grams of all orders by
// count, each with its rows in every layer, without duplicates. FAILED_PRECONDITION says how the
// hot set does not fit these tables.
Result<std::vector<RowOf>> HotRows(const HotSet& hot_set, const TableIdentity& identity,
                                   uint64_t rows_max);

}  // namespace engram::table
