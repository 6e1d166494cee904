#include "common/table/ngram.h"

#include <algorithm>

namespace engram::table {
namespace {

// The n-gram ending at the current position, by lookback. A position before the start counts as
// dead.
class Window {
 public:
  Window(const NgramState& before, int size) : size_(size) {
    const auto known = static_cast<int>(std::min<int64_t>(before.length(), size - 1));
    for (int lookback = 1; lookback <= known; ++lookback) {
      tokens_[static_cast<size_t>(lookback - 1)] = before.Back(lookback);
    }
  }

  void Push(NgramState::Token token) {
    std::copy_backward(tokens_.begin(), tokens_.begin() + size_ - 1, tokens_.begin() + size_);
    tokens_[0] = token;
  }
  const NgramState::Token& operator[](int lookback) const {
    return tokens_[static_cast<size_t>(lookback)];
  }

 private:
  static constexpr NgramState::Token kDead = {0, false};
  int size_;
  std::array<NgramState::Token, kMaxNgramSizeMax> tokens_ = {kDead, kDead, kDead, kDead,
                                                             kDead, kDead, kDead, kDead};
  static_assert(kMaxNgramSizeMax == 8);
};

// Floor mod of the mix taken as a signed number, by one unsigned division.
uint64_t FloorModulo(uint64_t mix, uint64_t prime) {
  if (static_cast<int64_t>(mix) >= 0) return mix % prime;
  return prime - 1 - ~mix % prime;
}

void HashPosition(const TableLayout& layout, const LayerLayout& layer, const Window& window,
                  uint64_t* rows) {
  const auto heads = static_cast<size_t>(layout.heads_per_order);
  const auto pad = static_cast<uint64_t>(layout.pad_compressed);
  bool reachable = window[0].live;
  // Products and mixes wrap as two's complement, which unsigned arithmetic does by definition.
  uint64_t mix = (reachable ? static_cast<uint64_t>(window[0].id) : pad) *
                 static_cast<uint64_t>(layer.multipliers[0]);
  size_t column = 0;
  for (int lookback = 1; lookback < layout.max_ngram_size; ++lookback) {
    reachable = reachable && window[lookback].live;
    const uint64_t value = reachable ? static_cast<uint64_t>(window[lookback].id) : pad;
    mix ^= value * static_cast<uint64_t>(layer.multipliers[static_cast<size_t>(lookback)]);
    for (size_t head = 0; head < heads; ++head, ++column) {
      rows[column] = layer.offsets[column] + FloorModulo(mix, layer.primes[column]);
    }
  }
}

}  // namespace

void NgramState::Append(int64_t compressed_id, bool live) {
  ring_[static_cast<size_t>(length_ % kCapacity)] = {compressed_id, live};
  ++length_;
  oldest_ = std::max(oldest_, length_ - kCapacity);
}

void NgramState::Rollback(int count) {
  CHECK(count >= 0 && count <= kRollbackMax && count <= length_)
      << "rolling back " << count << " of " << length_ << " tokens";
  length_ -= count;
  CHECK(oldest_ == 0 || length_ - oldest_ >= kMaxNgramSizeMax - 1)
      << "rolled back to " << length_ << ", but only tokens from " << oldest_ << " on are kept";
}

NgramState::Token NgramState::Back(int lookback) const {
  DCHECK(lookback >= 1 && lookback < kMaxNgramSizeMax && lookback <= length_)
      << "lookback " << lookback << " of " << length_;
  return ring_[static_cast<size_t>((length_ - lookback) % kCapacity)];
}

void HashRows(const TableLayout& layout, const LayerLayout& layer, const NgramState& before,
              std::span<const int64_t> ids, std::span<const uint8_t> live,
              std::span<uint64_t> rows) {
  const auto columns = static_cast<size_t>(layout.rows_per_position());
  CHECK(live.empty() || live.size() == ids.size()) << live.size() << " flags, " << ids.size();
  CHECK_EQ(rows.size(), ids.size() * columns);
  Window window(before, layout.max_ngram_size);
  for (size_t t = 0; t < ids.size(); ++t) {
    window.Push({ids[t], live.empty() || live[t] != 0});
    HashPosition(layout, layer, window, rows.data() + t * columns);
  }
}

void HashNgram(const TableLayout& layout, const LayerLayout& layer, std::span<const uint32_t> ngram,
               std::span<uint64_t> rows) {
  const auto heads = static_cast<size_t>(layout.heads_per_order);
  CHECK(ngram.size() >= 2 && ngram.size() <= static_cast<size_t>(layout.max_ngram_size))
      << ngram.size();
  CHECK_EQ(rows.size(), heads);
  uint64_t mix = 0;
  for (size_t lookback = 0; lookback < ngram.size(); ++lookback) {
    mix ^= uint64_t{ngram[ngram.size() - 1 - lookback]} *
           static_cast<uint64_t>(layer.multipliers[lookback]);
  }
  const size_t first_column = (ngram.size() - 2) * heads;
  for (size_t head = 0; head < heads; ++head) {
    const size_t column = first_column + head;
    rows[head] = layer.offsets[column] + FloorModulo(mix, layer.primes[column]);
  }
}

}  // namespace engram::table
