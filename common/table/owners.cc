#include "common/table/owners.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <numeric>

#include "common/base/check.h"
#include "common/base/rng.h"

namespace engram::table {
namespace {

using Wide = unsigned __int128;

constexpr uint64_t kOrderSeed = 0x656e6772616d6d65;
constexpr int kTableBits = 12;
constexpr int kScoreShift = 20;  // 58 bits of score are left for a weight of 1

uint64_t HashName(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a 64
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

// The fractional part of log2, by squaring: one bit a time.
uint32_t ExactFraction(uint64_t mantissa) {  // its highest bit is set
  uint32_t fraction = 0;
  for (int bit = 0; bit < 32; ++bit) {
    const Wide square = static_cast<Wide>(mantissa) * mantissa >> 63;
    const bool carry = square >> 64 != 0;
    mantissa = static_cast<uint64_t>(carry ? square >> 1 : square);
    fraction = fraction << 1 | (carry ? 1 : 0);
  }
  return fraction;
}

using LogTable = std::array<uint64_t, (1 << kTableBits) + 1>;

LogTable MakeLogTable() {
  LogTable table;
  for (uint64_t i = 0; i < table.size() - 1; ++i) {
    table[i] = ExactFraction((uint64_t{1} << 63) + (i << (63 - kTableBits)));
  }
  table.back() = uint64_t{1} << 32;
  return table;
}

// What Place knows of one member.
struct Candidate {
  uint64_t name_hash = 0;
  uint64_t weight = 1;
  uint32_t zone = 0;
  uint64_t room = 0;  // rows it takes while it holds fewer
  uint64_t rows = 0;
  uint64_t score = 0;  // of the partition at hand: the lowest is the best
};

struct Zone {
  uint64_t share = 0;
  uint64_t rows = 0;
  bool taken = false;  // by the partition at hand
  bool must = false;   // it comes near its share only if it takes all that is left
};

uint32_t WeightOf(const ClusterMap& map, size_t member) {
  return map.weights.empty() ? 1 : map.weights[member];
}

// Zones by number; members without zones are one each.
std::vector<uint32_t> ZonesOf(const ClusterMap& map) {
  std::vector<uint32_t> zones(map.members.size());
  if (map.zones.empty()) {
    std::iota(zones.begin(), zones.end(), 0u);
    return zones;
  }
  std::map<std::string, uint32_t> known;
  for (size_t i = 0; i < zones.size(); ++i) {
    zones[i] = known.try_emplace(map.zones[i], static_cast<uint32_t>(known.size())).first->second;
  }
  return zones;
}

uint32_t CountZones(const std::vector<uint32_t>& zones) {
  return 1 + *std::max_element(zones.begin(), zones.end());
}

// `wanted` in parts proportional to the weights, none above `most`.
std::vector<uint64_t> Share(const std::vector<uint64_t>& weights, Wide wanted, uint64_t most) {
  std::vector<uint64_t> shares(weights.size(), 0);
  std::vector<bool> full(weights.size(), false);
  while (true) {
    Wide left = wanted;
    Wide weight_left = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (full[i]) {
        left -= most;
      } else {
        weight_left += weights[i];
      }
    }
    bool grew = false;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (full[i]) continue;
      const Wide share = left * weights[i] / weight_left;
      shares[i] = static_cast<uint64_t>(std::min<Wide>(share, most));
      if (share > most) grew = full[i] = true;
    }
    if (!grew) return shares;
  }
}

// Of those that may take the partition: the best of those with room, else the one that is the least
// full. Null: none may.
template <typename May>
Candidate* Choose(std::vector<Candidate>& candidates, const May& may) {
  Candidate* best = nullptr;
  Candidate* emptiest = nullptr;
  for (Candidate& one : candidates) {
    if (!may(one)) continue;
    if (one.rows < one.room && (best == nullptr || one.score < best->score)) best = &one;
    if (emptiest == nullptr || static_cast<Wide>(one.rows) * emptiest->room <
                                   static_cast<Wide>(emptiest->rows) * one.room) {
      emptiest = &one;
    }
  }
  return best != nullptr ? best : emptiest;
}

}  // namespace

uint64_t FixedLog2(uint64_t x) {
  static const LogTable table = MakeLogTable();
  CHECK_GT(x, 0u);
  const int zeros = std::countl_zero(x);
  const uint64_t mantissa = x << zeros;
  const size_t index = mantissa >> (63 - kTableBits) & ((1 << kTableBits) - 1);
  const uint64_t between = mantissa >> (31 - kTableBits) & 0xffffffff;
  const uint64_t low = table[index];
  return (static_cast<uint64_t>(63 - zeros) << 32) + low +
         ((table[index + 1] - low) * between >> 32);
}

std::vector<uint64_t> FairShares(const ClusterMap& map, uint64_t total_rows) {
  const std::vector<uint32_t> zones = ZonesOf(map);
  const uint32_t zone_count = CountZones(zones);
  const Wide wanted = static_cast<Wide>(total_rows) * map.replicas;
  std::vector<uint64_t> weights(map.members.size());
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = WeightOf(map, i);
  std::vector<uint64_t> zone_weights(zone_count, 0);
  for (size_t i = 0; i < weights.size(); ++i) zone_weights[zones[i]] += weights[i];
  const std::vector<uint64_t> zone_shares = Share(zone_weights, wanted, total_rows);
  std::vector<uint64_t> shares(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const Wide share = static_cast<Wide>(zone_shares[zones[i]]) * weights[i];
    shares[i] = static_cast<uint64_t>(share / zone_weights[zones[i]]);
  }
  return shares;
}

OwnerTable::OwnerTable(const ClusterMap& map, std::span<const LayerPartitions> cuts)
    : replicas_(map.replicas) {
  struct Place {
    uint64_t order;
    uint32_t layer_index;
    uint32_t partition;
    auto operator<=>(const Place&) const = default;
  };
  std::vector<Place> places;
  uint64_t total_rows = 0;
  for (uint32_t layer = 0; layer < cuts.size(); ++layer) {
    for (uint32_t p = 0; p < cuts[layer].partition_count; ++p) {
      places.push_back({Mix64(kOrderSeed, layer, p), layer, p});
    }
    first_.push_back(places.size());
    total_rows += cuts[layer].total_rows;
  }
  owners_.resize(places.size() * replicas_);
  std::sort(places.begin(), places.end());

  const std::vector<uint32_t> zones = ZonesOf(map);
  const std::vector<uint64_t> shares = FairShares(map, total_rows);
  std::vector<Candidate> candidates(map.members.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    candidates[i] = {.name_hash = HashName(map.members[i]),
                     .weight = WeightOf(map, i),
                     .zone = zones[i],
                     .room = shares[i] + shares[i] / 20};
  }
  std::vector<Zone> zone_of(CountZones(zones));
  for (size_t i = 0; i < candidates.size(); ++i) zone_of[zones[i]].share += shares[i];
  uint64_t rows_left = total_rows;
  for (const Place& place : places) {
    for (Candidate& one : candidates) {
      // -log2 of a number in (0, 1), over the weight.
      const uint64_t hash = Mix64(one.name_hash, place.layer_index, place.partition) | 1;
      one.score = (((uint64_t{64} << 32) - FixedLog2(hash)) << kScoreShift) / one.weight;
    }
    for (Zone& zone : zone_of) {
      zone.taken = false;
      zone.must = zone.rows + rows_left <= zone.share - zone.share / 32;
    }
    const uint64_t rows = cuts[place.layer_index].RowCount(place.partition);
    uint16_t* const owners =
        owners_.data() + (first_[place.layer_index] + place.partition) * replicas_;
    for (uint32_t r = 0; r < replicas_; ++r) {
      const bool must = std::any_of(zone_of.begin(), zone_of.end(),
                                    [](const Zone& zone) { return zone.must && !zone.taken; });
      Candidate* const best = Choose(candidates, [&](const Candidate& one) {
        const Zone& zone = zone_of[one.zone];
        return !zone.taken && zone.must >= must;
      });
      CHECK(best != nullptr) << "fewer zones than replicas";
      best->rows += rows;
      zone_of[best->zone].rows += rows;
      zone_of[best->zone].taken = true;
      owners[r] = static_cast<uint16_t>(best - candidates.data());
    }
    rows_left -= rows;
  }
}

bool OwnerTable::Owns(uint16_t member, uint32_t layer_index, uint32_t partition) const {
  const std::span<const uint16_t> owners = Of(layer_index, partition);
  return std::find(owners.begin(), owners.end(), member) != owners.end();
}

std::vector<uint32_t> OwnerTable::OwnedBy(uint16_t member, uint32_t layer_index) const {
  std::vector<uint32_t> owned;
  const size_t count = first_[layer_index + 1] - first_[layer_index];
  for (uint32_t partition = 0; partition < count; ++partition) {
    if (Owns(member, layer_index, partition)) owned.push_back(partition);
  }
  return owned;
}

std::optional<OwnerTable::Partition> OwnerTable::FirstWithoutOwner(
    const std::vector<bool>& away) const {
  if (std::count(away.begin(), away.end(), true) < replicas_) return std::nullopt;
  for (uint32_t layer = 0; layer < layer_count(); ++layer) {
    const auto partitions = static_cast<uint32_t>(first_[layer + 1] - first_[layer]);
    for (uint32_t partition = 0; partition < partitions; ++partition) {
      const auto owners = Of(layer, partition);
      if (std::all_of(owners.begin(), owners.end(), [&](uint16_t owner) { return away[owner]; })) {
        return Partition{layer, partition};
      }
    }
  }
  return std::nullopt;
}

uint64_t OwnerTable::digest() const {
  uint64_t digest = Mix64(replicas_, owners_.size());
  for (const uint16_t owner : owners_) digest = Mix64(digest, owner);
  return digest;
}

}  // namespace engram::table
