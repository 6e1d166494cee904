// NgramCache: the client's memory of rows it has fetched. The K rows (heads) of one (layer, order,
// n-gram) are always read together, so one entry holds K rows and its key is those K row ids,
// compared in full. Of one immutable table version: nothing is ever invalidated.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "common/table/layout.h"

namespace engram::client {

// Off by default: whether it pays depends on the stream. Hit rate from which on it does, at
// 264-byte rows, 3,072 a step, 256 MiB (tests/bench/ngram_cache_bench.cc): 16-23 % before a source
// of 20 us a step and 50 ns a row (7 % slower without hits, 30 % faster at 60 %, 55 % at 90 %);
// 12-26 % before a memory node over TCP loopback; 55 % before one whose memory is mapped; 80 %
// before tables in this process.
struct NgramCacheOptions {
  uint64_t bytes = 0;  // of memory, entries and index; 0 = no cache
};

// Exact, in n-grams (K rows each); every field only grows.
struct CacheCounts {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t inserts = 0;
  uint64_t evictions = 0;
  uint64_t passed_by = 0;  // not taken: seen for the first time, and there was no empty place
};

struct CacheStats {
  std::vector<std::vector<CacheCounts>> layers;  // [layer][order]; order 0 = 2-grams
  uint64_t entries = 0;
  uint64_t entries_max = 0;
  uint64_t bytes_used = 0;  // the index and the entries held; at most bytes_max
  uint64_t bytes_max = 0;   // all the memory there will ever be; at most the option

  CacheCounts Total() const;
};

// Memory is reserved once, in huge pages when there are any, and becomes real as entries come.
// Every layer has an equal share: all layers see the same n-grams. A share is cut into sets of 16
// entries, each with a clock of its own: an entry must be hit before it survives the hand. Once a
// set is full, an n-gram is taken when it comes for the second time: most come once, and copying
// one in costs more (20 ns a row) than fetching it from memory. The cache so pays from 17 % hits
// on; it would from 46 % if every n-gram were taken (fixed-cost source).
//
// Thread-safe: one lock, held for at most kBlock n-grams at a time.
class NgramCache {
 public:
  // INVALID_ARGUMENT when `bytes` does not hold one set a layer: then the message has the least.
  static Result<std::unique_ptr<NgramCache>> Make(const table::TableLayout& layout,
                                                  const NgramCacheOptions& options);

  size_t ngram_rows() const { return heads_; }  // K
  size_t ngram_bytes() const { return value_bytes_; }

  // `rows` holds K ids an n-gram. Copies the n-grams it has to their places in `out` (row i at
  // i * row_bytes) and leaves the other places alone; `missed` becomes the numbers of the n-grams
  // it has not, ascending.
  void Lookup(uint32_t layer_index, std::span<const uint64_t> rows, std::span<std::byte> out,
              std::vector<uint32_t>& missed);
  // Takes copies of the n-grams' rows; those it has already are left alone.
  void Insert(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte> bytes);

  CacheStats stats() const;

 private:
  static constexpr size_t kWays = 16;
  static constexpr size_t kSeen = 14;
  static constexpr size_t kBlock = 64;  // found or copied under one lock: some microseconds

  // One cache line: what there is to know before an entry itself is touched.
  struct alignas(64) Set {
    std::array<uint16_t, kWays> tags;  // of the hash; 0 = empty
    std::array<uint16_t, kSeen> seen;  // tags passed by, the oldest at next_seen
    uint16_t referenced;               // by way: hit since the hand passed
    uint8_t hand;                      // points to an empty way while there is one
    uint8_t next_seen;
  };
  static_assert(sizeof(Set) == 64);
  // Where an n-gram would be.
  struct Place {
    Set* set = nullptr;
    size_t first_entry = 0;  // of the set
    uint16_t tag = 0;
    uint16_t candidates = 0;  // ways whose tag agrees
    uint8_t order = 0;
  };

  NgramCache(const table::TableLayout& layout, size_t sets_per_layer, AlignedBuffer memory);
  static size_t EntryBytes(const table::TableLayout& layout);

  std::byte* EntryAt(size_t entry) { return entries_ + entry * entry_bytes_; }
  std::byte* ValueOf(std::byte* entry) const { return entry + heads_ * sizeof(uint64_t); }
  Place PlaceOf(uint32_t layer_index, const uint64_t* ids) const;
  static void FindCandidates(Place& place);
  // The entry of exactly these ids, or null. Under the lock, candidates filled in.
  std::byte* Find(const Place& place, const uint64_t* ids, size_t* way);
  void LookupBlock(std::span<Place> places, uint32_t layer_index, const uint64_t* ids,
                   std::byte* out, uint32_t first, std::vector<uint32_t>& missed);
  void InsertBlock(std::span<Place> places, uint32_t layer_index, const uint64_t* ids,
                   const std::byte* bytes);
  std::byte* TakeEntry(Place& place, uint32_t layer_index, const uint64_t* ids);
  static bool SeenBefore(Set& set, uint16_t tag);
  size_t TakeWay(Set& set, CacheCounts& counts);
  CacheCounts& CountsOf(uint32_t layer_index, const Place& place) {
    return counts_[layer_index * orders_ + place.order];
  }

  const size_t heads_;
  const size_t orders_;
  const size_t value_bytes_;  // K * row_bytes
  const size_t entry_bytes_;  // K ids, then the value; whole cache lines
  const size_t layer_count_;
  const size_t sets_per_layer_;
  std::vector<uint64_t> order_first_;  // [layer, order]: first row id of the order
  AlignedBuffer memory_;               // sets, then entries
  Set* const sets_;
  std::byte* const entries_;

  mutable std::mutex mutex_;         // guards the sets, the entries and what follows
  std::vector<CacheCounts> counts_;  // [layer, order]
  uint64_t entry_count_ = 0;
};

}  // namespace engram::client
