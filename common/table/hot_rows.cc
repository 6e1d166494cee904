// From a hot set's n-grams to the rows of one table set.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "common/base/rng.h"
#include "common/table/hot_set.h"
#include "common/table/ngram.h"

namespace engram::table {
namespace {

constexpr uint64_t kRowsAtFirst = 1 << 16;

Status CheckFits(const HotSet& hot_set, const TableIdentity& identity) {
  const auto differs = [](std::string_view what, auto counted, auto table) {
    return FailedPrecondition(fmt::format(
        "the hot set was counted with {} {}, the tables have {}: count with the tables' model",
        what, counted, table));
  };
  if (hot_set.max_ngram_size != identity.max_ngram_size) {
    return differs("n-grams of up to", hot_set.max_ngram_size, identity.max_ngram_size);
  }
  if (hot_set.compressed_vocab_size != identity.compressed_vocab_size) {
    return differs("a compressed vocabulary of", hot_set.compressed_vocab_size,
                   identity.compressed_vocab_size);
  }
  if (hot_set.pad_compressed != identity.pad_compressed) {
    return differs("pad id", hot_set.pad_compressed, identity.pad_compressed);
  }
  for (const TableIdentity::Layer& layer : identity.layers) {
    const size_t columns = (identity.max_ngram_size - 1) * identity.heads_per_order;
    if (layer.multipliers.size() == identity.max_ngram_size && layer.primes.size() == columns) {
      continue;
    }
    return FailedPrecondition(
        fmt::format("rows of layer {} are not found by n-grams: a hot set says nothing about them",
                    layer.layer_id));
  }
  return OkStatus();
}

TableLayout LayoutOf(const TableIdentity& identity) {
  TableLayout layout;
  layout.max_ngram_size = static_cast<int>(identity.max_ngram_size);
  layout.heads_per_order = static_cast<int>(identity.heads_per_order);
  layout.compressed_vocab_size = identity.compressed_vocab_size;
  layout.pad_compressed = identity.pad_compressed;
  for (const TableIdentity::Layer& layer : identity.layers) {
    LayerLayout to;
    to.layer_id = layer.layer_id;
    to.multipliers = layer.multipliers;
    to.primes = layer.primes;
    for (const uint64_t prime : layer.primes) {
      to.offsets.push_back(to.total_rows);
      to.total_rows += prime;
    }
    layout.layers.push_back(std::move(to));
  }
  return layout;
}

// Rows in the order they came, each once: an open-addressing table of places in the list, at most
// half full.
class RowList {
 public:
  explicit RowList(uint64_t rows_max)
      : rows_max_(rows_max), places_(2 * std::min(std::bit_ceil(rows_max + 1), kRowsAtFirst)) {}

  bool full() const { return rows_.size() >= rows_max_; }
  void Add(const RowOf& row) {
    if (full()) return;
    uint32_t& place = Probe(row);
    if (place != 0) return;
    rows_.push_back(row);
    place = static_cast<uint32_t>(rows_.size());
    if (rows_.size() * 2 < places_.size()) return;
    places_.assign(places_.size() * 2, 0);
    for (size_t i = 0; i < rows_.size(); ++i) Probe(rows_[i]) = static_cast<uint32_t>(i + 1);
  }
  std::vector<RowOf> Take() { return std::move(rows_); }

 private:
  uint32_t& Probe(const RowOf& row) {
    size_t at = Mix64(row.layer_index, row.row) & (places_.size() - 1);
    while (places_[at] != 0 && rows_[places_[at] - 1] != row) at = (at + 1) & (places_.size() - 1);
    return places_[at];
  }

  const uint64_t rows_max_;
  std::vector<RowOf> rows_;
  std::vector<uint32_t> places_;  // 0: free, else 1 + place in rows_
};

}  // namespace

Result<std::vector<RowOf>> HotRows(const HotSet& hot_set, const TableIdentity& identity,
                                   uint64_t rows_max) {
  RETURN_IF_ERROR(CheckFits(hot_set, identity));
  const TableLayout layout = LayoutOf(identity);
  RowList list(std::min<uint64_t>(rows_max, std::numeric_limits<uint32_t>::max() / 2));
  std::vector<size_t> next(hot_set.orders.size());
  std::vector<uint64_t> rows(identity.heads_per_order);
  while (!list.full()) {
    // The most frequent n-gram not yet taken; of equals, the shorter.
    size_t best = hot_set.orders.size();
    uint64_t best_count = 0;
    for (size_t i = 0; i < next.size(); ++i) {
      const std::vector<uint64_t>& counts = hot_set.orders[i].counts;
      if (next[i] >= counts.size() || counts[next[i]] <= best_count) continue;
      best = i;
      best_count = counts[next[i]];
    }
    if (best == hot_set.orders.size()) break;
    const size_t n = best + 2;
    const auto ngram = std::span(hot_set.orders[best].ids).subspan(next[best]++ * n, n);
    for (uint32_t i = 0; i < layout.layers.size(); ++i) {
      HashNgram(layout, layout.layers[i], ngram, rows);
      for (const uint64_t row : rows) list.Add({i, row});
    }
  }
  return list.Take();
}

}  // namespace engram::table
