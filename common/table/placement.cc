#include "common/table/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "common/base/rng.h"

namespace engram::table {
namespace {

constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kPageTrailerBytes = 8;
constexpr int kPagesPerPartitionLog2Max = 12;
constexpr uint64_t kPartitionsMin = 64;

uint64_t CeilDivide(uint64_t a, uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

uint64_t HashName(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a 64
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

std::vector<uint64_t> HashNames(const ClusterMap& map) {
  std::vector<uint64_t> hashes;
  hashes.reserve(map.members.size());
  for (const std::string& name : map.members) hashes.push_back(HashName(name));
  return hashes;
}

// The member with the highest score; the first of equals.
uint32_t HighestScore(const std::vector<uint64_t>& name_hashes, uint32_t layer_index,
                      uint32_t partition) {
  CHECK(!name_hashes.empty() && name_hashes.size() <= kMembersMax) << name_hashes.size();
  uint32_t owner = 0;
  uint64_t best = 0;
  for (uint32_t member = 0; member < name_hashes.size(); ++member) {
    const uint64_t score = Mix64(name_hashes[member], layer_index, partition);
    if (member == 0 || score > best) {
      owner = member;
      best = score;
    }
  }
  return owner;
}

}  // namespace

uint32_t RowsPerPage(uint32_t row_bytes) {
  CHECK_GT(row_bytes, 0u);
  return std::max(1u, (kPageBytes - kPageTrailerBytes) / row_bytes);
}

uint64_t LayerPartitions::RowCount(uint32_t partition) const {
  CHECK_LT(partition, partition_count);
  return std::min(rows_per_partition, total_rows - FirstRow(partition));
}

LayerPartitions CutLayer(uint64_t total_rows, uint32_t row_bytes) {
  LayerPartitions cut;
  cut.total_rows = total_rows;
  cut.rows_per_page = RowsPerPage(row_bytes);
  int log2 = kPagesPerPartitionLog2Max;
  const auto rows_at = [&](int k) { return uint64_t{cut.rows_per_page} << k; };
  while (log2 > 0 && CeilDivide(total_rows, rows_at(log2)) < kPartitionsMin) --log2;
  cut.rows_per_partition = rows_at(log2);
  CHECK_LT(total_rows, std::numeric_limits<uint64_t>::max() / cut.rows_per_partition);
  cut.reciprocal = cut.rows_per_partition == 1
                       ? 0
                       : std::numeric_limits<uint64_t>::max() / cut.rows_per_partition + 1;
  const uint64_t count = CeilDivide(total_rows, cut.rows_per_partition);
  CHECK_LE(count, uint64_t{std::numeric_limits<uint32_t>::max()});
  cut.partition_count = static_cast<uint32_t>(count);
  return cut;
}

namespace {

Status CheckWeightsAndZones(const ClusterMap& map) {
  const size_t members = map.members.size();
  if (!map.weights.empty() && map.weights.size() != members) {
    return InvalidArgument(fmt::format("{} weights for {} members", map.weights.size(), members));
  }
  if (!map.zones.empty() && map.zones.size() != members) {
    return InvalidArgument(fmt::format("{} zones for {} members", map.zones.size(), members));
  }
  for (size_t i = 0; i < members; ++i) {
    if (!map.weights.empty() && (map.weights[i] < 1 || map.weights[i] > kWeightMax)) {
      return InvalidArgument(fmt::format("member \"{}\" has weight {}, expected 1 to {}",
                                         map.members[i], map.weights[i], kWeightMax));
    }
    if (!map.zones.empty() && map.zones[i].empty()) {
      return InvalidArgument(fmt::format("member \"{}\" has an empty zone", map.members[i]));
    }
  }
  const std::unordered_set<std::string_view> zones(map.zones.begin(), map.zones.end());
  if (!zones.empty() && zones.size() < map.replicas) {
    return InvalidArgument(
        fmt::format("{} replicas of each row in {} zones: a zone would hold two of one row",
                    map.replicas, zones.size()));
  }
  return OkStatus();
}

}  // namespace

Status Validate(const ClusterMap& map) {
  if (map.members.empty() || map.members.size() > kMembersMax) {
    return InvalidArgument(
        fmt::format("a cluster of {} members, expected 1 to {}", map.members.size(), kMembersMax));
  }
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < map.members.size(); ++i) {
    if (map.members[i].empty()) {
      return InvalidArgument(fmt::format("member {} of the cluster has no name", i));
    }
    if (!seen.insert(map.members[i]).second) {
      return InvalidArgument(fmt::format("the cluster lists member \"{}\" twice", map.members[i]));
    }
  }
  if (map.replicas < 1 || map.replicas > kReplicasMax || map.replicas > map.members.size()) {
    return InvalidArgument(fmt::format("{} replicas of each row on {} members, expected 1 to {}",
                                       map.replicas, map.members.size(),
                                       std::min<size_t>(map.members.size(), kReplicasMax)));
  }
  return CheckWeightsAndZones(map);
}

uint32_t OwnerOf(const ClusterMap& map, uint32_t layer_index, uint32_t partition) {
  return HighestScore(HashNames(map), layer_index, partition);
}

std::vector<uint16_t> OwnersOfLayer(const ClusterMap& map, uint32_t layer_index,
                                    uint32_t partition_count) {
  const std::vector<uint64_t> name_hashes = HashNames(map);
  std::vector<uint16_t> owners(partition_count);
  for (uint32_t partition = 0; partition < partition_count; ++partition) {
    owners[partition] = static_cast<uint16_t>(HighestScore(name_hashes, layer_index, partition));
  }
  return owners;
}

}  // namespace engram::table
