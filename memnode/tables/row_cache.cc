#include "memnode/tables/row_cache.h"

#include <algorithm>
#include <cstring>

#include "common/base/rng.h"
#include "common/table/row_check.h"

namespace engram::memnode {
namespace {

constexpr uint8_t kUsesMax = 3;

// Never 0. Row numbers stay below 2^46 (64 layers of 2^40 rows).
uint64_t KeyOf(uint32_t layer_index, uint64_t row) {
  return (uint64_t{layer_index} + 1) << 48 | row;
}

// Tells the rows of one set apart, mostly; never 0.
uint16_t TagOf(uint64_t key) { return static_cast<uint16_t>(Mix64(key, 0) | 1); }

}  // namespace

Result<std::unique_ptr<RowCache>> RowCache::Create(uint64_t size_bytes, uint32_t stored_row_bytes) {
  const uint64_t set_bytes = kWays * stored_row_bytes + sizeof(Set);
  const size_t set_count = std::max<uint64_t>(size_bytes / set_bytes, 1);
  auto rows =
      AlignedBuffer::Allocate(set_count * kWays * stored_row_bytes, PageBacking::kTransparent);
  if (!rows.ok()) return rows.status().WithContext("memory for the cache of rows");
  return std::unique_ptr<RowCache>(new RowCache(set_count, stored_row_bytes, std::move(*rows)));
}

RowCache::RowCache(size_t set_count, uint32_t stored_row_bytes, AlignedBuffer rows)
    : stored_row_bytes_(stored_row_bytes),
      sets_(set_count),
      rows_(std::move(rows)),
      locks_(kLocks) {}

size_t RowCache::SetOf(uint64_t key) const {
  const uint64_t hash = Mix64(key, 0);
  return static_cast<size_t>((static_cast<unsigned __int128>(hash) * sets_.size()) >> 64);
}

std::byte* RowCache::Slot(size_t set, size_t way) {
  return rows_.data() + (set * kWays + way) * stored_row_bytes_;
}

bool RowCache::Get(uint32_t layer_index, uint64_t row, std::byte* out) {
  const uint64_t key = KeyOf(layer_index, row);
  const size_t index = SetOf(key);
  {
    const std::lock_guard lock(locks_[index % kLocks].mutex);
    Set& set = sets_[index];
    for (size_t way = 0; way < kWays; ++way) {
      if (set.keys[way] != key) continue;
      if (set.uses[way] < kUsesMax) ++set.uses[way];
      std::memcpy(out, Slot(index, way), stored_row_bytes_);
      hits_.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
  }
  misses_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

bool RowCache::IsDamaged(uint32_t layer_index, uint64_t row) {
  const uint64_t key = KeyOf(layer_index, row);
  const size_t index = SetOf(key);
  const std::lock_guard lock(locks_[index % kLocks].mutex);
  for (size_t way = 0; way < kWays; ++way) {
    if (sets_[index].keys[way] != key) continue;
    const std::span<const std::byte> stored(Slot(index, way), stored_row_bytes_);
    uint32_t check = 0;
    const auto bytes = stored.first(stored.size() - sizeof(check));
    std::memcpy(&check, bytes.data() + bytes.size(), sizeof(check));
    return table::RowCheck(layer_index, row, bytes) != check;
  }
  return false;
}

bool RowCache::Forget(uint32_t layer_index, uint64_t row) {
  const uint64_t key = KeyOf(layer_index, row);
  const size_t index = SetOf(key);
  const std::lock_guard lock(locks_[index % kLocks].mutex);
  Set& set = sets_[index];
  for (size_t way = 0; way < kWays; ++way) {
    if (set.keys[way] != key) continue;
    set.keys[way] = 0;
    set.uses[way] = 0;
    return true;
  }
  return false;
}

size_t RowCache::FreeKeptWay(Set& set) {
  const auto pass = [&] {
    const size_t way = set.hand;
    set.hand = static_cast<uint8_t>(way + 1 == kWays ? kNewWays : way + 1);
    return way;
  };
  while (set.keys[set.hand] != 0 && set.uses[set.hand] > 0) --set.uses[pass()];
  return pass();
}

size_t RowCache::FreeNewWay(size_t index) {
  Set& set = sets_[index];
  const size_t way = set.next_new;
  set.next_new = static_cast<uint8_t>((way + 1) % kNewWays);
  const uint64_t key = set.keys[way];
  if (key == 0) return way;
  if (set.uses[way] > 0 || set.keys[set.hand] == 0) {
    const size_t kept = FreeKeptWay(set);
    set.keys[kept] = key;
    set.uses[kept] = 0;
    std::memcpy(Slot(index, kept), Slot(index, way), stored_row_bytes_);
  } else {
    set.gone[set.next_gone] = TagOf(key);
    set.next_gone = static_cast<uint8_t>((set.next_gone + 1) % kGoneCount);
  }
  return way;
}

void RowCache::Put(uint32_t layer_index, uint64_t row, const std::byte* stored) {
  const uint64_t key = KeyOf(layer_index, row);
  const size_t index = SetOf(key);
  const std::lock_guard lock(locks_[index % kLocks].mutex);
  Set& set = sets_[index];
  if (std::find(set.keys.begin(), set.keys.end(), key) != set.keys.end()) return;
  const auto gone = std::find(set.gone.begin(), set.gone.end(), TagOf(key));
  const bool again = gone != set.gone.end();
  if (again) *gone = 0;
  const size_t way = again ? FreeKeptWay(set) : FreeNewWay(index);
  set.keys[way] = key;
  set.uses[way] = 0;
  std::memcpy(Slot(index, way), stored, stored_row_bytes_);
}

}  // namespace engram::memnode
