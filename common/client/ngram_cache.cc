#include "common/client/ngram_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/base/rng.h"

namespace engram::client {
namespace {

constexpr size_t kCacheLineBytes = 64;
constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = 2 << 20;
// N-grams between asking for an entry's memory and copying it.
constexpr size_t kPrefetchDistance = 2;
constexpr size_t kGuessDistance = 8;

constexpr std::array<uint64_t, table::kHeadsMax> MakeHashFactors() {
  std::array<uint64_t, table::kHeadsMax> factors{};
  for (size_t i = 0; i < factors.size(); ++i) factors[i] = Mix64(i) | 1;
  return factors;
}
constexpr std::array<uint64_t, table::kHeadsMax> kHashFactors = MakeHashFactors();

// The products do not wait for each other, unlike a chain of mixes.
uint64_t HashIds(const uint64_t* ids, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += (ids[i] + 1) * kHashFactors[i];
  return Mix64(sum);
}

void Prefetch(const std::byte* memory, size_t size_bytes) {
  for (size_t at = 0; at < size_bytes; at += kCacheLineBytes) __builtin_prefetch(memory + at);
}

}  // namespace

CacheCounts CacheStats::Total() const {
  CacheCounts total;
  for (const std::vector<CacheCounts>& orders : layers) {
    for (const CacheCounts& counts : orders) {
      total.hits += counts.hits;
      total.misses += counts.misses;
      total.inserts += counts.inserts;
      total.evictions += counts.evictions;
      total.passed_by += counts.passed_by;
    }
  }
  return total;
}

size_t NgramCache::EntryBytes(const table::TableLayout& layout) {
  const auto heads = static_cast<size_t>(layout.heads_per_order);
  const size_t bytes = heads * (sizeof(uint64_t) + layout.row_format.row_bytes());
  return (bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
}

Result<std::unique_ptr<NgramCache>> NgramCache::Make(const table::TableLayout& layout,
                                                     const NgramCacheOptions& options) {
  const size_t layer_count = layout.layers.size();
  CHECK(layer_count > 0 && layout.heads_per_order > 0 && layout.heads_per_order <= table::kHeadsMax)
      << "a layout without Engram layers or heads";
  const size_t counts = layer_count * static_cast<size_t>(layout.max_ngram_size - 1);
  const uint64_t fixed = sizeof(NgramCache) + counts * (sizeof(CacheCounts) + sizeof(uint64_t));
  const uint64_t bytes_per_row_of_sets = layer_count * (sizeof(Set) + kWays * EntryBytes(layout));
  // Whole pages, so that what the kernel gives is what was counted.
  uint64_t memory_bytes = options.bytes > fixed ? options.bytes - fixed : 0;
  memory_bytes -= memory_bytes % (memory_bytes >= kHugePageBytes ? kHugePageBytes : kPageBytes);
  const uint64_t sets_per_layer =
      std::min<uint64_t>(memory_bytes / bytes_per_row_of_sets, uint64_t{1} << 32);
  if (sets_per_layer == 0) {
    return InvalidArgument(fmt::format(
        "an n-gram cache of {} bytes: the least that holds {} entries for each of {} layers is {} "
        "bytes; give it more, or 0 for no cache",
        options.bytes, kWays, layer_count, fixed + bytes_per_row_of_sets + kPageBytes));
  }
  ASSIGN_OR_RETURN(AlignedBuffer memory,
                   AlignedBuffer::Allocate(memory_bytes, PageBacking::kTransparent));
  return std::unique_ptr<NgramCache>(new NgramCache(layout, sets_per_layer, std::move(memory)));
}

NgramCache::NgramCache(const table::TableLayout& layout, size_t sets_per_layer,
                       AlignedBuffer memory)
    : heads_(static_cast<size_t>(layout.heads_per_order)),
      orders_(static_cast<size_t>(layout.max_ngram_size - 1)),
      value_bytes_(heads_ * layout.row_format.row_bytes()),
      entry_bytes_(EntryBytes(layout)),
      layer_count_(layout.layers.size()),
      sets_per_layer_(sets_per_layer),
      memory_(std::move(memory)),
      sets_(reinterpret_cast<Set*>(memory_.data())),
      entries_(memory_.data() + layer_count_ * sets_per_layer_ * sizeof(Set)),
      counts_(layer_count_ * orders_) {
  for (const table::LayerLayout& layer : layout.layers) {
    CHECK_EQ(layer.offsets.size(), orders_ * heads_);
    for (size_t order = 0; order < orders_; ++order) {
      order_first_.push_back(layer.offsets[order * heads_]);
    }
  }
}

NgramCache::Place NgramCache::PlaceOf(uint32_t layer_index, const uint64_t* ids) const {
  const uint64_t hash = HashIds(ids, heads_);
  const size_t set = layer_index * sets_per_layer_ + (((hash >> 32) * sets_per_layer_) >> 32);
  Place place;
  place.set = sets_ + set;
  place.first_entry = set * kWays;
  place.tag = std::max<uint16_t>(1, static_cast<uint16_t>(hash));
  const uint64_t* firsts = order_first_.data() + layer_index * orders_;
  while (place.order + 1u < orders_ && ids[0] >= firsts[place.order + 1u]) ++place.order;
  return place;
}

void NgramCache::FindCandidates(Place& place) {
  uint32_t candidates = 0;
  for (size_t way = 0; way < kWays; ++way) {
    candidates |= (place.set->tags[way] == place.tag ? 1u : 0u) << way;
  }
  place.candidates = static_cast<uint16_t>(candidates);
}

std::byte* NgramCache::Find(const Place& place, const uint64_t* ids, size_t* way) {
  for (uint32_t left = place.candidates; left != 0; left &= left - 1) {
    *way = static_cast<size_t>(std::countr_zero(left));
    std::byte* const entry = EntryAt(place.first_entry + *way);
    if (std::memcmp(entry, ids, heads_ * sizeof(uint64_t)) == 0) return entry;
  }
  return nullptr;
}

void NgramCache::Lookup(uint32_t layer_index, std::span<const uint64_t> rows,
                        std::span<std::byte> out, std::vector<uint32_t>& missed) {
  const size_t count = rows.size() / heads_;
  CHECK(layer_index < layer_count_ && rows.size() % heads_ == 0 &&
        out.size() == count * value_bytes_);
  missed.clear();
  std::array<Place, kBlock> places;
  for (size_t first = 0; first < count; first += kBlock) {
    const std::span<Place> block(places.data(), std::min(kBlock, count - first));
    const uint64_t* const ids = rows.data() + first * heads_;
    for (size_t i = 0; i < block.size(); ++i) {
      block[i] = PlaceOf(layer_index, ids + i * heads_);
      __builtin_prefetch(block[i].set);
    }
    const std::lock_guard lock(mutex_);
    LookupBlock(block, layer_index, ids, out.data() + first * value_bytes_,
                static_cast<uint32_t>(first), missed);
  }
}

void NgramCache::LookupBlock(std::span<Place> places, uint32_t layer_index, const uint64_t* ids,
                             std::byte* out, uint32_t first, std::vector<uint32_t>& missed) {
  const auto look_ahead = [&](size_t i) {
    Place& place = places[i];
    FindCandidates(place);
    if (place.candidates == 0) return;
    const auto way = static_cast<size_t>(std::countr_zero(place.candidates));
    Prefetch(EntryAt(place.first_entry + way), entry_bytes_);
  };
  for (size_t i = 0; i < std::min(kPrefetchDistance, places.size()); ++i) look_ahead(i);
  for (size_t i = 0; i < places.size(); ++i) {
    if (i + kPrefetchDistance < places.size()) look_ahead(i + kPrefetchDistance);
    CacheCounts& counts = CountsOf(layer_index, places[i]);
    size_t way = 0;
    std::byte* const entry = Find(places[i], ids + i * heads_, &way);
    if (entry == nullptr) {
      ++counts.misses;
      missed.push_back(first + static_cast<uint32_t>(i));
      continue;
    }
    ++counts.hits;
    places[i].set->referenced = static_cast<uint16_t>(places[i].set->referenced | (1u << way));
    std::memcpy(out + i * value_bytes_, ValueOf(entry), value_bytes_);
  }
}

void NgramCache::Insert(uint32_t layer_index, std::span<const uint64_t> rows,
                        std::span<const std::byte> bytes) {
  const size_t count = rows.size() / heads_;
  CHECK(layer_index < layer_count_ && rows.size() % heads_ == 0 &&
        bytes.size() == count * value_bytes_);
  std::array<Place, kBlock> places;
  for (size_t first = 0; first < count; first += kBlock) {
    const std::span<Place> block(places.data(), std::min(kBlock, count - first));
    for (size_t i = 0; i < block.size(); ++i) {
      block[i] = PlaceOf(layer_index, rows.data() + (first + i) * heads_);
      __builtin_prefetch(block[i].set, 1);
    }
    const std::lock_guard lock(mutex_);
    InsertBlock(block, layer_index, rows.data() + first * heads_,
                bytes.data() + first * value_bytes_);
  }
}

// Entries are taken, and their memory asked for, ahead of the copy: a copy that waits for every
// line it overwrites takes twice as long.
void NgramCache::InsertBlock(std::span<Place> places, uint32_t layer_index, const uint64_t* ids,
                             const std::byte* bytes) {
  std::array<std::byte*, kBlock> values;
  const auto take = [&](size_t i) {
    if (i + kGuessDistance < places.size()) {  // most often the hand stands on it
      const Place& next = places[i + kGuessDistance];
      __builtin_prefetch(EntryAt(next.first_entry + next.set->hand), 1);
    }
    values[i] = TakeEntry(places[i], layer_index, ids + i * heads_);
    if (values[i] == nullptr) return;
    for (size_t at = 0; at < value_bytes_; at += kCacheLineBytes) {
      __builtin_prefetch(values[i] + at, 1);
    }
  };
  for (size_t i = 0; i < std::min(kPrefetchDistance, places.size()); ++i) take(i);
  for (size_t i = 0; i < places.size(); ++i) {
    if (i + kPrefetchDistance < places.size()) take(i + kPrefetchDistance);
    if (values[i] != nullptr) std::memcpy(values[i], bytes + i * value_bytes_, value_bytes_);
  }
}

// Makes room for these ids and writes them; returns where their rows go, or null when they are
// there or not taken.
std::byte* NgramCache::TakeEntry(Place& place, uint32_t layer_index, const uint64_t* ids) {
  FindCandidates(place);
  size_t way = 0;
  if (Find(place, ids, &way) != nullptr) return nullptr;
  CacheCounts& counts = CountsOf(layer_index, place);
  if (place.set->tags[place.set->hand] != 0 && !SeenBefore(*place.set, place.tag)) {
    ++counts.passed_by;
    return nullptr;
  }
  way = TakeWay(*place.set, counts);
  ++counts.inserts;
  place.set->tags[way] = place.tag;
  std::byte* const entry = EntryAt(place.first_entry + way);
  std::memcpy(entry, ids, heads_ * sizeof(uint64_t));
  return ValueOf(entry);
}

// Forgets the tag when it is there, else remembers it.
bool NgramCache::SeenBefore(Set& set, uint16_t tag) {
  const auto found = std::find(set.seen.begin(), set.seen.end(), tag);
  if (found != set.seen.end()) {
    *found = 0;
    return true;
  }
  set.seen[set.next_seen] = tag;
  set.next_seen = static_cast<uint8_t>((set.next_seen + 1u) % kSeen);
  return false;
}

// An empty way, or the first one from the hand on that was not hit since the hand last passed.
size_t NgramCache::TakeWay(Set& set, CacheCounts& counts) {
  while (true) {
    const size_t way = set.hand;
    const auto bit = static_cast<uint16_t>(1u << way);
    set.hand = static_cast<uint8_t>((way + 1) % kWays);
    if (set.tags[way] == 0) {
      ++entry_count_;
      return way;
    }
    if ((set.referenced & bit) == 0) {
      ++counts.evictions;
      return way;
    }
    set.referenced = static_cast<uint16_t>(set.referenced & ~bit);
  }
}

CacheStats NgramCache::stats() const {
  const uint64_t index_bytes = sizeof(NgramCache) +
                               counts_.size() * (sizeof(CacheCounts) + sizeof(uint64_t)) +
                               layer_count_ * sets_per_layer_ * sizeof(Set);
  CacheStats stats;
  stats.entries_max = layer_count_ * sets_per_layer_ * kWays;
  stats.bytes_max =
      index_bytes - layer_count_ * sets_per_layer_ * sizeof(Set) + memory_.size_bytes();
  const std::lock_guard lock(mutex_);
  for (size_t layer = 0; layer < layer_count_; ++layer) {
    const auto begin = counts_.begin() + static_cast<std::ptrdiff_t>(layer * orders_);
    stats.layers.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(orders_));
  }
  stats.entries = entry_count_;
  stats.bytes_used = index_bytes + entry_count_ * entry_bytes_;
  return stats;
}

}  // namespace engram::client
