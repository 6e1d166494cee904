#include "common/text/bpe_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <queue>
#include <unordered_map>
#include <vector>

#include "common/text/byte_level.h"
#include "common/text/pretokenizer.h"
#include "common/text/utf8.h"

namespace engram::text {
namespace {

constexpr int64_t kPairCountMin = 2;  // a pair seen once is not worth a token

using Pair = std::pair<int32_t, int32_t>;
struct PairHash {
  size_t operator()(const Pair& pair) const {
    return (static_cast<size_t>(static_cast<uint32_t>(pair.first)) << 32 |
            static_cast<uint32_t>(pair.second)) *
           0x9e3779b97f4a7c15ull;
  }
};

struct Word {
  std::vector<int32_t> tokens;  // indices into Trainer::bytes_
  int64_t count = 0;
};

// Counts of adjacent pairs, kept up to date as pairs merge; a heap of counts with stale entries
// skipped when popped.
class Trainer {
 public:
  explicit Trainer(const std::map<std::string_view, int64_t>& word_counts) {
    for (int byte = 0; byte < 256; ++byte) bytes_.emplace_back(1, static_cast<char>(byte));
    for (const auto& [text, count] : word_counts) {
      Word word{{}, count};
      for (const char c : text) word.tokens.push_back(static_cast<uint8_t>(c));
      words_.push_back(std::move(word));
    }
    for (size_t i = 0; i < words_.size(); ++i) {
      const std::vector<int32_t>& tokens = words_[i].tokens;
      for (size_t t = 0; t + 1 < tokens.size(); ++t) {
        Change({tokens[t], tokens[t + 1]}, words_[i].count, i);
      }
    }
    for (const auto& [pair, entry] : pairs_) Push(pair, entry.count);
  }

  // Merges the most frequent pair; false when none is frequent enough.
  bool MergeOne() {
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      if (pairs_[best.pair].count != best.count) continue;
      std::string merged = Bytes(best.pair.first) + Bytes(best.pair.second);
      // Two ways to the same bytes would be one token in a vocabulary keyed by spelling.
      if (!known_.try_emplace(merged, true).second) continue;
      bytes_.push_back(std::move(merged));
      merges_.push_back(best.pair);
      Apply(best.pair, static_cast<int32_t>(bytes_.size() - 1));
      return true;
    }
    return false;
  }

  const std::string& Bytes(int32_t token) const { return bytes_[static_cast<size_t>(token)]; }
  const std::vector<std::string>& tokens() const { return bytes_; }
  const std::vector<Pair>& merges() const { return merges_; }

 private:
  struct Candidate {
    int64_t count = 0;
    Pair pair;
    std::string left, right;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest
      if (count != other.count) return count < other.count;
      return std::tie(left, right) > std::tie(other.left, other.right);
    }
  };
  struct Entry {
    int64_t count = 0;
    std::vector<size_t> words;  // may repeat and may be stale
  };

  void Push(const Pair& pair, int64_t count) {
    if (count >= kPairCountMin) heap_.push({count, pair, Bytes(pair.first), Bytes(pair.second)});
  }

  void Change(const Pair& pair, int64_t by, size_t word) {
    Entry& entry = pairs_[pair];
    entry.count += by;
    if (by > 0 && (entry.words.empty() || entry.words.back() != word)) entry.words.push_back(word);
  }

  void Apply(const Pair& pair, int32_t merged) {
    const std::vector<size_t> holders = std::move(pairs_[pair].words);
    std::map<Pair, bool> changed;
    for (const size_t index : holders) MergeInWord(index, pair, merged, changed);
    pairs_.erase(pair);
    for (const auto& [touched, unused] : changed) {
      if (touched != pair) Push(touched, pairs_[touched].count);
    }
  }

  void MergeInWord(size_t index, const Pair& pair, int32_t merged, std::map<Pair, bool>& changed) {
    Word& word = words_[index];
    std::vector<int32_t> tokens;
    for (size_t t = 0; t < word.tokens.size(); ++t) {
      const bool hit = t + 1 < word.tokens.size() && word.tokens[t] == pair.first &&
                       word.tokens[t + 1] == pair.second;
      tokens.push_back(hit ? merged : word.tokens[t]);
      t += hit;
    }
    if (tokens.size() == word.tokens.size()) return;
    const auto add = [&](const std::vector<int32_t>& list, int64_t by) {
      for (size_t t = 0; t + 1 < list.size(); ++t) {
        Change({list[t], list[t + 1]}, by, index);
        changed.try_emplace({list[t], list[t + 1]}, true);
      }
    };
    add(word.tokens, -word.count);
    add(tokens, word.count);
    word.tokens = std::move(tokens);
  }

  std::vector<std::string> bytes_;  // by token
  std::unordered_map<std::string, bool> known_;
  std::vector<Pair> merges_;
  std::vector<Word> words_;
  std::unordered_map<Pair, Entry, PairHash> pairs_;
  std::priority_queue<Candidate> heap_;
};

json::value Document(const Trainer& trainer, std::span<const std::string> special_tokens) {
  json::array added, merges;
  json::object vocabulary;
  int64_t id = 0;
  for (const std::string& special : special_tokens) {
    vocabulary[special] = id;
    added.push_back(json::object{{"id", id++},
                                 {"content", special},
                                 {"single_word", false},
                                 {"lstrip", false},
                                 {"rstrip", false},
                                 {"normalized", false},
                                 {"special", true}});
  }
  for (const std::string& bytes : trainer.tokens()) vocabulary[ToByteLevel(bytes)] = id++;
  for (const auto& [left, right] : trainer.merges()) {
    merges.push_back(
        json::string(ToByteLevel(trainer.Bytes(left)) + " " + ToByteLevel(trainer.Bytes(right))));
  }
  const json::object byte_level{{"type", "ByteLevel"},
                                {"add_prefix_space", true},
                                {"trim_offsets", true},
                                {"use_regex", true}};
  return json::object{{"version", "1.0"},
                      {"truncation", nullptr},
                      {"padding", nullptr},
                      {"added_tokens", std::move(added)},
                      {"normalizer", nullptr},
                      {"pre_tokenizer", DeepSeekPreTokenizer()},
                      {"post_processor", nullptr},
                      {"decoder", byte_level},
                      {"model", json::object{{"type", "BPE"},
                                             {"dropout", nullptr},
                                             {"unk_token", nullptr},
                                             {"continuing_subword_prefix", nullptr},
                                             {"end_of_word_suffix", nullptr},
                                             {"fuse_unk", false},
                                             {"byte_fallback", false},
                                             {"ignore_merges", false},
                                             {"vocab", std::move(vocabulary)},
                                             {"merges", std::move(merges)}}}};
}

}  // namespace

Result<json::value> TrainTokenizer(std::string_view text, int vocab_size,
                                   std::span<const std::string> special_tokens) {
  if (const size_t valid = ValidUtf8Prefix(text); valid != text.size()) {
    return InvalidArgument(
        fmt::format("cannot train a tokenizer: the text is not UTF-8 at byte {}", valid));
  }
  const auto wanted =
      static_cast<int64_t>(vocab_size) - static_cast<int64_t>(special_tokens.size());
  if (wanted < 256) {
    return InvalidArgument(fmt::format(
        "cannot train a tokenizer of {} tokens: {} special tokens and 256 bytes are the least",
        vocab_size, special_tokens.size()));
  }
  ASSIGN_OR_RETURN(const PreTokenizer splitter,
                   PreTokenizer::FromJson(DeepSeekPreTokenizer(), "pre_tokenizer"));
  ASSIGN_OR_RETURN(const auto words, splitter.Split(text));
  std::map<std::string_view, int64_t> counts;
  for (const std::string_view word : words) ++counts[word];
  Trainer trainer(counts);
  while (static_cast<int64_t>(trainer.tokens().size()) < wanted) {
    if (!trainer.MergeOne()) {
      return InvalidArgument(fmt::format(
          "cannot train a tokenizer of {} tokens: {} bytes of text give only {}; give more text",
          vocab_size, text.size(), trainer.tokens().size() + special_tokens.size()));
    }
  }
  return Document(trainer, special_tokens);
}

}  // namespace engram::text
