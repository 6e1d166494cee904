// Does the n-gram cache pay? ns a row with and without it, at several hit rates, over sources that
// cost a fixed time a step and a row, read memory (tables in this process), or are memory nodes
// (--memnodes: of engram-memnode --set procedural.layout=v41, with the same --rows-scale). Prints
// the hit rate from which on it pays.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "common/base/rng.h"
#include "common/base/spread.h"
#include "common/client/cached_source.h"
#include "common/client/lookup/client.h"
#include "common/client/lookup/config.h"
#include "common/table/procedural.h"

namespace {

using namespace engram;
using client::LayerLookup;
using client::RowSource;
using client::Ticket;
using std::chrono::steady_clock;

struct Flags {
  uint64_t cache_mib = 256;
  uint64_t table_mib = 1024;
  uint32_t tokens = 64;
  int rounds = 12;
  int steps = 60;  // a round
  double row_ns = 50;
  double step_us = 20;
  std::vector<int> hit_percent = {0, 30, 60, 90};
  double rows_scale = 1;
  client::LookupConfig lookup;
};

double NsSince(steady_clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(steady_clock::now() - begin).count();
}

// Every row begins with this, so that what comes back can be compared.
uint64_t Mark(uint32_t layer, uint64_t row) { return Mix64(layer + 1, row); }

// Busy for step_us and row_ns a row, part of which goes into writing the rows.
class FixedCostSource : public RowSource {
 public:
  FixedCostSource(size_t row_bytes, const Flags& flags) : row_bytes_(row_bytes), flags_(flags) {}
  const table::TableIdentity& identity() const override { return identity_; }
  client::SourceStats stats() const override { return {}; }
  Result<Ticket> Submit(std::span<const LayerLookup> layers,
                        const client::SubmitOptions&) override {
    const auto begin = steady_clock::now();
    double due = flags_.step_us * 1e3;
    for (const LayerLookup& lookup : layers) {
      due += flags_.row_ns * static_cast<double>(lookup.rows.size());
      std::byte* out = lookup.out.data();
      for (const uint64_t row : lookup.rows) {
        const uint64_t mark = Mark(lookup.layer_index, row);
        std::memcpy(out, &mark, sizeof(mark));
        std::memset(out + sizeof(mark), static_cast<int>(row), row_bytes_ - sizeof(mark));
        out += row_bytes_;
      }
    }
    while (NsSince(begin) < due) {
    }
    return Ticket::Done(layers);
  }

 private:
  const size_t row_bytes_;
  const Flags& flags_;
  const table::TableIdentity identity_;
};

// Gathers from a table in memory, prefetching as a good loop does.
class MemorySource : public RowSource {
 public:
  MemorySource(size_t row_bytes, AlignedBuffer table)
      : row_bytes_(row_bytes), rows_(table.size_bytes() / row_bytes), table_(std::move(table)) {
    for (size_t i = 0; i < rows_; ++i) std::memset(table_.data() + i * row_bytes_, 1, row_bytes_);
  }
  const table::TableIdentity& identity() const override { return identity_; }
  client::SourceStats stats() const override { return {}; }
  Result<Ticket> Submit(std::span<const LayerLookup> layers,
                        const client::SubmitOptions&) override {
    constexpr size_t kAhead = 12;
    for (const LayerLookup& lookup : layers) {
      for (size_t i = 0; i < lookup.rows.size() + kAhead; ++i) {
        if (i < lookup.rows.size()) {
          const std::byte* const row = RowAt(lookup.rows[i]);
          for (size_t at = 0; at < row_bytes_; at += 64) __builtin_prefetch(row + at);
        }
        if (i < kAhead) continue;
        std::memcpy(lookup.out.data() + (i - kAhead) * row_bytes_, RowAt(lookup.rows[i - kAhead]),
                    row_bytes_);
      }
    }
    return Ticket::Done(layers);
  }

 private:
  const std::byte* RowAt(uint64_t row) const {
    const auto at = static_cast<size_t>((static_cast<unsigned __int128>(Mix64(row)) * rows_) >> 64);
    return table_.data() + at * row_bytes_;
  }
  const size_t row_bytes_;
  const size_t rows_;
  AlignedBuffer table_;
  const table::TableIdentity identity_;
};

// Steps whose n-grams are from a hot set with a given probability, else never seen before.
class Stream {
 public:
  Stream(const table::TableLayout& layout, uint32_t tokens, uint64_t hot_positions)
      : layout_(layout), tokens_(tokens), hot_positions_(hot_positions), next_(hot_positions) {
    const size_t rows = tokens * static_cast<size_t>(layout.rows_per_position());
    for (size_t i = 0; i < layout.layers.size(); ++i) {
      rows_.emplace_back(rows);
      bytes_.emplace_back(rows * layout.row_format.row_bytes());
      layers_.push_back({static_cast<uint32_t>(i), rows_.back(), bytes_.back()});
    }
  }
  // All n-grams of one token are hot or new together.
  std::span<const LayerLookup> Draw(double hit_rate) {
    for (uint32_t t = 0; t < tokens_; ++t) {
      FillToken(t, rng_.NextDouble() < hit_rate ? rng_.NextBelow(hot_positions_) : next_++);
    }
    return layers_;
  }
  std::span<const LayerLookup> DrawHot(uint64_t first) {
    for (uint32_t t = 0; t < tokens_; ++t) FillToken(t, (first + t) % hot_positions_);
    return layers_;
  }
  size_t row_count() const { return rows_.size() * rows_[0].size(); }
  bool MarksRight() const {
    for (const LayerLookup& lookup : layers_) {
      const size_t row_bytes = layout_.row_format.row_bytes();
      for (size_t i = 0; i < lookup.rows.size(); ++i) {
        const uint64_t mark = Mark(lookup.layer_index, lookup.rows[i]);
        if (std::memcmp(lookup.out.data() + i * row_bytes, &mark, sizeof(mark)) != 0) return false;
      }
    }
    return true;
  }

 private:
  void FillToken(uint32_t token, uint64_t number) {
    const auto columns = static_cast<size_t>(layout_.rows_per_position());
    for (size_t l = 0; l < rows_.size(); ++l) {
      const table::LayerLayout& layer = layout_.layers[l];
      for (size_t c = 0; c < columns; ++c) {
        rows_[l][token * columns + c] = layer.offsets[c] + Mix64(number, c, l) % layer.primes[c];
      }
    }
  }
  const table::TableLayout& layout_;
  const uint32_t tokens_;
  const uint64_t hot_positions_;
  uint64_t next_;
  Rng rng_{7};
  std::vector<std::vector<uint64_t>> rows_;
  std::vector<std::vector<std::byte>> bytes_;
  std::vector<LayerLookup> layers_;
};

double StepNs(RowSource& source, std::span<const LayerLookup> layers) {
  const auto begin = steady_clock::now();
  auto ticket = source.Submit(layers, TimePoint::max());
  CHECK(ticket.ok()) << ticket.status().ToString();
  for (const LayerLookup& lookup : layers) CHECK(ticket->Wait(lookup.layer_index).ok());
  return NsSince(begin);
}

void Measure(const char* name, std::unique_ptr<RowSource> inner, const table::TableLayout& layout,
             const Flags& flags, bool marked) {
  auto made = client::CachedSource::Make(std::move(inner), layout, {flags.cache_mib << 20});
  CHECK(made.ok()) << made.status().ToString();
  client::CachedSource& cached = **made;
  // Entries of one position in every layer: its orders.
  const uint64_t hot = cached.cache_stats().entries_max /
                       (layout.layers.size() * static_cast<size_t>(layout.max_ngram_size - 1)) / 2;
  Stream stream(layout, flags.tokens, std::max<uint64_t>(hot, 1));
  // Full first, so that what is measured evicts and meets no new pages.
  while (cached.cache_stats().entries * 100 < cached.cache_stats().entries_max * 99) {
    StepNs(cached, stream.Draw(0));
  }
  fmt::print("{}\n  hit rate   without     with   ns/row, medians of {} rounds\n", name,
             flags.rounds);
  double last_rate = 0;
  double last_gain = 0;
  double break_even = -1;
  for (const int percent : flags.hit_percent) {
    for (int pass = 0; pass < 2; ++pass) {
      for (uint64_t at = 0; at < hot; at += flags.tokens) StepNs(cached, stream.DrawHot(at));
    }
    const client::CacheCounts before = cached.cache_stats().Total();
    std::vector<double> with;
    std::vector<double> without;
    for (int round = 0; round < flags.rounds; ++round) {
      double ns[2] = {0, 0};
      for (int step = 0; step < 2 * flags.steps; ++step) {
        const bool use_cache = (step + round) % 2 == 0;
        const auto layers = stream.Draw(percent / 100.0);
        ns[use_cache] += StepNs(use_cache ? cached : cached.inner(), layers);
        CHECK(!marked || stream.MarksRight()) << "a wrong row";
      }
      const double rows = flags.steps * static_cast<double>(stream.row_count());
      without.push_back(ns[0] / rows);
      with.push_back(ns[1] / rows);
    }
    const client::CacheCounts after = cached.cache_stats().Total();
    const auto hits = static_cast<double>(after.hits - before.hits);
    const double rate = hits / (hits + static_cast<double>(after.misses - before.misses));
    const double alone = SpreadOf(without).median, cache = SpreadOf(with).median;
    const double gain = alone - cache;
    fmt::print("  {:>7.1f}%  {:>8.2f} {:>8.2f}   {:+.0f} %\n", rate * 100, alone, cache,
               (cache / alone - 1) * 100);
    if (break_even < 0 && gain >= 0) {
      break_even =
          last_gain < 0 ? last_rate - last_gain * (rate - last_rate) / (gain - last_gain) : rate;
    }
    last_rate = rate;
    last_gain = gain;
  }
  fmt::print("  pays from a hit rate of {}\n",
             break_even < 0 ? "none measured" : fmt::format("{:.0f} %", break_even * 100));
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("What the n-gram cache costs and saves, by hit rate");
  app.add_option("--cache-mib", flags.cache_mib, "of the cache")->check(CLI::Range(1, 65536));
  app.add_option("--table-mib", flags.table_mib, "of the source in memory")
      ->check(CLI::Range(1, 65536));
  app.add_option("--tokens", flags.tokens, "a step")->check(CLI::Range(1, 4096));
  app.add_option("--rounds", flags.rounds, "measured")->check(CLI::Range(1, 1000));
  app.add_option("--steps", flags.steps, "a round and leg")->check(CLI::Range(1, 10000));
  app.add_option("--row-ns", flags.row_ns, "of the fixed-cost source")->check(CLI::Range(0, 10000));
  app.add_option("--step-us", flags.step_us, "of the fixed-cost source")
      ->check(CLI::Range(0, 10000));
  app.add_option("--hit-percent", flags.hit_percent, "shares of hot tokens, ascending");
  app.add_option("--rows-scale", flags.rows_scale, "of the rows, as the memory nodes' one");
  app.add_option("--memnodes", flags.lookup.memnodes, "host:port,... ; none: not measured")
      ->delimiter(',');
  app.add_option("--wire", flags.lookup.wire.kind, "tcp or ucx");
  app.add_option("--path", flags.lookup.path, "auto, local, gather or one_sided");
  CLI11_PARSE(app, argc, argv);
  const table::ProceduralSpec spec = {"v41", flags.rows_scale, 1};
  const auto layout = table::MakeProceduralLayout(spec);
  CHECK(layout.ok()) << layout.status().ToString();
  const size_t row_bytes = layout->row_format.row_bytes();
  fmt::print(
      "{} rows of {} bytes a step, cache of {} MiB\n",
      flags.tokens * layout->layers.size() * static_cast<size_t>(layout->rows_per_position()),
      row_bytes, flags.cache_mib);
  Measure(fmt::format("{} us a step + {} ns a row", flags.step_us, flags.row_ns).c_str(),
          std::make_unique<FixedCostSource>(row_bytes, flags), *layout, flags, true);
  auto table = AlignedBuffer::Allocate(flags.table_mib << 20, PageBacking::kTransparent);
  CHECK(table.ok()) << table.status().ToString();
  Measure(fmt::format("a table of {} MiB in memory", flags.table_mib).c_str(),
          std::make_unique<MemorySource>(row_bytes, std::move(*table)), *layout, flags, false);
  if (flags.lookup.memnodes.empty()) return 0;
  auto options = flags.lookup.Options();
  CHECK(options.ok()) << options.status().ToString();
  options->identity = table::MakeProceduralIdentity(spec, *layout);
  auto nodes = client::LookupClient::Connect(*options, *layout);
  CHECK(nodes.ok()) << nodes.status().ToString();
  Measure(
      fmt::format("memory nodes by {}, path {}", flags.lookup.wire.kind, flags.lookup.path).c_str(),
      std::move(*nodes), *layout, flags, false);
  return 0;
}
