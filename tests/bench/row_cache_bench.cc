// What share of row reads the cache of rows answers, beside plain LRU of the same number of rows
// and the best choice of rows in hindsight that never changes. Of Zipf ranks, and of the rows that
// a text reads in one Engram layer; of these also what the pinned rows of a hot set answer.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <list>
#include <sstream>
#include <unordered_map>
#include <vector>

#include "common/base/rng.h"
#include "common/checkpoint/model_tables.h"
#include "common/table/hot_set.h"
#include "common/table/ngram.h"
#include "common/text/tokenizer.h"
#include "memnode/load/zipf.h"
#include "memnode/tables/row_cache.h"

namespace {

using namespace engram;

// Rows are small here: what they hold does not change which are kept.
constexpr uint32_t kRowBytes = 8;

struct Flags {
  std::vector<uint64_t> cache_rows = {16'384, 65'536, 262'144, 1'048'576};
  uint64_t reads = 8'000'000;
  uint64_t population = 16'000'000;  // of the Zipf ranks
  std::vector<double> thetas = {0.8, 0.99, 1.2};
  std::string model_dir;
  std::vector<std::string> texts;
  uint64_t tokens = 1'000'000;
  std::string hot_set_path;
  std::vector<double> pinned_percent = {0.1, 1, 5};  // of all rows
};

class Lru {
 public:
  explicit Lru(uint64_t capacity) : capacity_(capacity) { places_.reserve(capacity + 1); }
  bool Read(uint64_t row) {
    const auto found = places_.find(row);
    if (found != places_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      return true;
    }
    order_.push_front(row);
    places_[row] = order_.begin();
    if (order_.size() > capacity_) {
      places_.erase(order_.back());
      order_.pop_back();
    }
    return false;
  }

 private:
  const uint64_t capacity_;
  std::list<uint64_t> order_;
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

class Ours {
 public:
  explicit Ours(uint64_t capacity) : cache_(Make(capacity)) {}
  bool Read(uint64_t row) {
    std::byte bytes[kRowBytes] = {};
    if (cache_->Get(0, row, bytes)) return true;
    cache_->Put(0, row, bytes);
    return false;
  }
  uint64_t capacity() const { return cache_->capacity_rows(); }

 private:
  // Of as many rows as that, whatever their bookkeeping takes.
  static std::unique_ptr<memnode::RowCache> Make(uint64_t rows) {
    uint64_t bytes = rows * kRowBytes;
    for (;;) {
      auto cache = memnode::RowCache::Create(bytes, kRowBytes);
      CHECK(cache.ok()) << cache.status().message();
      const uint64_t got = (*cache)->capacity_rows();
      if (got * 1000 >= rows * 999) return *std::move(cache);
      bytes = bytes * rows / got + 1;
    }
  }
  std::unique_ptr<memnode::RowCache> cache_;
};

// The second half's hits; the first one warms it.
template <typename Cache>
double HitPercent(Cache& cache, std::span<const uint64_t> reads) {
  const size_t half = reads.size() / 2;
  for (const uint64_t row : reads.first(half)) cache.Read(row);
  uint64_t hits = 0;
  for (const uint64_t row : reads.subspan(half)) hits += cache.Read(row) ? 1 : 0;
  return 100 * static_cast<double>(hits) / static_cast<double>(reads.size() - half);
}

// Reads of the second half by row, the most read first.
std::vector<uint64_t> Counts(std::span<const uint64_t> reads) {
  std::vector<uint64_t> rows(reads.begin() + static_cast<ptrdiff_t>(reads.size() / 2), reads.end());
  std::sort(rows.begin(), rows.end());
  std::vector<uint64_t> counts;
  for (size_t i = 0, first = 0; i <= rows.size(); ++i) {
    if (i < rows.size() && rows[i] == rows[first]) continue;
    counts.push_back(i - first);
    first = i;
  }
  std::sort(counts.rbegin(), counts.rend());
  return counts;
}

void Measure(const std::string& name, std::span<const uint64_t> reads, const Flags& flags) {
  const std::vector<uint64_t> counts = Counts(reads);
  const size_t measured = reads.size() - reads.size() / 2;
  fmt::print("{}: {} reads measured, of {} rows\n", name, measured, counts.size());
  fmt::print("  {:>10} {:>8} {:>8} {:>12}   hits in %\n", "rows", "cache", "LRU", "best fixed");
  for (const uint64_t capacity : flags.cache_rows) {
    Ours ours(capacity);
    Lru lru(ours.capacity());
    uint64_t best = 0;
    for (size_t i = 0; i < std::min<size_t>(counts.size(), capacity); ++i) best += counts[i];
    const double ours_percent = HitPercent(ours, reads);
    fmt::print("  {:>10} {:>8.2f} {:>8.2f} {:>12.2f}\n", ours.capacity(), ours_percent,
               HitPercent(lru, reads),
               100 * static_cast<double>(best) / static_cast<double>(measured));
  }
}

std::vector<uint64_t> ZipfReads(double theta, const Flags& flags) {
  const memnode::load::ZipfRanks ranks(theta, flags.population);
  Rng rng(7);
  std::vector<uint64_t> reads(flags.reads);
  for (uint64_t& row : reads) row = Mix64(ranks.Next(rng)) >> 20;
  return reads;
}

// Rows of the first layer that the texts read, one text after the other.
std::vector<uint64_t> TextReads(const client::ModelTables& tables, const Flags& flags) {
  const auto tokenizer = text::Tokenizer::Load(flags.model_dir + "/tokenizer.json");
  CHECK(tokenizer.ok()) << tokenizer.status().message();
  const table::TableLayout& layout = tables.layout;
  const auto columns = static_cast<size_t>(layout.rows_per_position());
  std::vector<uint64_t> reads;
  for (const std::string& path : flags.texts) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream content;
    content << in.rdbuf();
    CHECK(in.good()) << "cannot read " << path;
    const auto raw = tokenizer->Encode(content.str());
    CHECK(raw.ok()) << path << ": " << raw.status().message();
    std::vector<int64_t> ids;
    for (const int32_t id : *raw) ids.push_back(*tables.map.Compress(id));
    ids.resize(std::min<size_t>(ids.size(), flags.tokens - reads.size() / columns));
    const size_t first = reads.size();
    reads.resize(first + ids.size() * columns);
    table::HashRows(layout, layout.layers[0], table::NgramState(), ids, {},
                    std::span(reads).subspan(first));
  }
  return reads;
}

// Of the same reads: how many of the hot set's rows answer, of as many rows as that share of the
// tables.
void MeasurePinned(const client::ModelTables& tables, std::span<const uint64_t> reads,
                   const Flags& flags) {
  const auto hot_set = table::ReadHotSet(flags.hot_set_path);
  CHECK(hot_set.ok()) << hot_set.status().message();
  uint64_t total_rows = 0;
  for (const table::LayerLayout& layer : tables.layout.layers) total_rows += layer.total_rows;
  fmt::print("pinned rows of {}, of {} rows in {} layers\n", flags.hot_set_path, total_rows,
             tables.layout.layers.size());
  for (const double percent : flags.pinned_percent) {
    const auto room = static_cast<uint64_t>(static_cast<double>(total_rows) * percent / 100);
    const auto rows = table::HotRows(*hot_set, tables.identity, room);
    CHECK(rows.ok()) << rows.status().message();
    std::vector<bool> pinned(tables.layout.layers[0].total_rows);
    for (const table::RowOf& row : *rows) {
      if (row.layer_index == 0) pinned[row.row] = true;
    }
    const auto hits =
        std::count_if(reads.begin(), reads.end(), [&](uint64_t row) { return pinned[row]; });
    fmt::print("  {:>5} % of the rows ({} there are): {:.2f} % of the reads\n", percent,
               rows->size(), 100 * static_cast<double>(hits) / static_cast<double>(reads.size()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("What the cache of rows answers, beside LRU");
  app.add_option("--cache-rows", flags.cache_rows, "sizes measured")
      ->delimiter(',')
      ->check(CLI::Range(1000, 100'000'000));
  app.add_option("--reads", flags.reads, "of Zipf ranks")->check(CLI::Range(1000, 1'000'000'000));
  app.add_option("--population", flags.population, "of Zipf ranks");
  app.add_option("--theta", flags.thetas, "of Zipf ranks; 0: none")->delimiter(',');
  auto* model = app.add_option("--model", flags.model_dir, "its folder: tokenizer and layout");
  app.add_option("--text", flags.texts, "files to read the rows of")->needs(model);
  app.add_option("--tokens", flags.tokens, "of the texts, at most")
      ->check(CLI::Range(1000, 100'000'000));
  app.add_option("--hot-set", flags.hot_set_path, "file of engramctl hotset")->needs(model);
  app.add_option("--pinned-percent", flags.pinned_percent, "of all rows")->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  for (const double theta : flags.thetas) {
    if (theta <= 0) continue;
    Measure(fmt::format("Zipf {} over {} rows", theta, flags.population), ZipfReads(theta, flags),
            flags);
  }
  if (flags.texts.empty()) return 0;
  const auto tables = client::LoadModelTables(flags.model_dir, "", "");
  CHECK(tables.ok()) << tables.status().message();
  const std::vector<uint64_t> reads = TextReads(*tables, flags);
  Measure(fmt::format("{} texts, tokenizer of {}", flags.texts.size(), flags.model_dir), reads,
          flags);
  if (!flags.hot_set_path.empty()) MeasurePinned(*tables, reads, flags);
  return 0;
}
