#include "common/text/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace engram::text {
namespace {

struct Symbol {
  int32_t token = 0;  // -1: merged into its left neighbour
  int32_t previous = 0;
  int32_t next = 0;  // -1 at either end
};

struct Candidate {
  int32_t rank = 0;
  int32_t position = 0;  // of the left symbol
  int32_t left = 0;      // the tokens the rank was found for: a stale candidate shows by them
  int32_t right = 0;
  bool operator>(const Candidate& other) const {
    return std::pair(rank, position) > std::pair(other.rank, other.position);
  }
};

}  // namespace

bool BytePairMerger::AddMerge(int32_t left, int32_t right, int32_t merged, int32_t rank) {
  return merges_.try_emplace(Key(left, right), Merge{rank, merged}).second;
}

const BytePairMerger::Merge* BytePairMerger::Find(int32_t left, int32_t right) const {
  const auto found = merges_.find(Key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairMerger::Encode(std::string_view word, std::vector<int32_t>& tokens) const {
  const auto size = static_cast<int32_t>(word.size());
  std::vector<Symbol> symbols(word.size());
  for (int32_t i = 0; i < size; ++i) {
    symbols[static_cast<size_t>(i)] = {
        byte_tokens_[static_cast<uint8_t>(word[static_cast<size_t>(i)])], i - 1,
        i + 1 < size ? i + 1 : -1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto at = [&symbols](int32_t i) -> Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto consider = [&](int32_t position) {
    if (position < 0 || at(position).next < 0) return;
    const int32_t left = at(position).token;
    const int32_t right = at(at(position).next).token;
    if (const Merge* merge = Find(left, right)) queue.push({merge->rank, position, left, right});
  };
  for (int32_t i = 0; i < size; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = at(best.position);
    if (left.token != best.left || left.next < 0 || at(left.next).token != best.right) continue;
    Symbol& right = at(left.next);
    left.token = Find(best.left, best.right)->merged;
    right.token = -1;
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = best.position;
    consider(left.previous);
    consider(best.position);
  }
  for (int32_t i = 0; i >= 0 && i < size; i = at(i).next) tokens.push_back(at(i).token);
}

}  // namespace engram::text
