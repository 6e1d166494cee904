// Tokens to row ids: a rolling window of compressed ids, hashed per layer.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "common/table/layout.h"

namespace engram::table {

// The last N-1 compressed ids of one sequence with their dead flags, plus enough older ones to roll
// back. A small value: copy it to snapshot. It must survive chunked prefill, prefix hits,
// preemption and rejected drafts.
class NgramState {
 public:
  static constexpr int kRollbackMax = 64;  // tokens that may be taken back

  // Appends one token; live = false for a masked (dead) position.
  void Append(int64_t compressed_id, bool live = true);
  // Forgets the last `count` tokens; count <= min(kRollbackMax, length()). Without an Append in
  // between, rollbacks may not add up to more than what is kept: that is a CHECK, never a wrong id.
  void Rollback(int count);
  int64_t length() const { return length_; }

  struct Token {
    int64_t id = 0;
    bool live = true;
  };
  // The token `lookback` >= 1 positions before the next one; lookback <= min(kMaxNgramSizeMax - 1,
  // length()).
  Token Back(int lookback) const;

 private:
  static constexpr int kCapacity = 128;  // power of two >= kRollbackMax + kMaxNgramSizeMax
  std::array<Token, kCapacity> ring_{};
  int64_t length_ = 0;
  int64_t oldest_ = 0;  // position of the oldest token still in the ring
};

// Row ids of `ids` (compressed, following `before`) for one layer: rows[t * H + column]. `live` is
// empty (all live) or one flag a token; a dead token's rows are those of an all-pad n-gram and its
// gate must be forced to 0. Ids may be any int64 (floor mod). rows.size() == ids.size() * H.
// `before` is not changed.
void HashRows(const TableLayout& layout, const LayerLayout& layer, const NgramState& before,
              std::span<const int64_t> ids, std::span<const uint8_t> live,
              std::span<uint64_t> rows);

// The rows of one n-gram alone, those that HashRows gives in the columns of its order: `ngram` is
// 2..N compressed ids, oldest first, the pad id where it reaches before the start; rows.size() ==
// K.
void HashNgram(const TableLayout& layout, const LayerLayout& layer, std::span<const uint32_t> ngram,
               std::span<uint64_t> rows);

}  // namespace engram::table
