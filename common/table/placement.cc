#include "common/table/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <sstream>
#include <unordered_set>

#include "common/io/object_reader.h"

namespace engram::table {
namespace {

constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kPageTrailerBytes = 8;
constexpr int kPagesPerPartitionLog2Max = 12;
constexpr uint64_t kPartitionsMin = 64;

uint64_t CeilDivide(uint64_t a, uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

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
  if (!map.addresses.empty() && map.addresses.size() != members) {
    return InvalidArgument(
        fmt::format("{} addresses for {} members", map.addresses.size(), members));
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

bool SamePlacement(ClusterMap a, ClusterMap b) {
  a.addresses.clear();
  b.addresses.clear();
  return a == b;
}

bool HasMember(const ClusterMap& map, std::string_view member) {
  return std::ranges::count(map.members, member) > 0;
}

std::string ZoneOf(const ClusterMap& map, std::string_view member) {
  const auto found = std::ranges::find(map.members, member);
  if (map.zones.empty() || found == map.members.end()) return "";
  return map.zones[static_cast<size_t>(found - map.members.begin())];
}

json::object ToJson(const ClusterMap& map) {
  json::object object = {{"epoch", int64_t{map.epoch}}, {"members", json::value_from(map.members)}};
  if (map.replicas != 1) object["replicas"] = int64_t{map.replicas};
  if (!map.weights.empty()) object["weights"] = json::array(map.weights.begin(), map.weights.end());
  if (!map.zones.empty()) object["zones"] = json::value_from(map.zones);
  if (!map.addresses.empty()) object["addresses"] = json::value_from(map.addresses);
  return object;
}

Result<ClusterMap> MapFromJson(const json::object& object) {
  ClusterMap map;
  io::ObjectReader read(object, "map");
  const auto texts = [&](std::string_view key, std::vector<std::string>& out) {
    for (const json::value& text : read.Array(key, kMembersMax)) {
      if (!text.is_string()) {
        return read.Fail(InvalidArgument(fmt::format("map: {} holds more than texts", key)));
      }
      out.emplace_back(text.get_string());
    }
  };
  read.Int("epoch", 0, UINT32_MAX, map.epoch);
  texts("members", map.members);
  if (read.Has("replicas")) read.Int("replicas", 1, kReplicasMax, map.replicas);
  if (read.Has("weights")) {
    for (const json::value& weight : read.Array("weights", kMembersMax)) {
      boost::system::error_code error;
      map.weights.push_back(weight.is_number() ? weight.to_number<uint16_t>(error) : 0);
      if (error || map.weights.back() == 0) {
        return InvalidArgument(
            fmt::format("map: weight {}, expected 1 to {}", json::serialize(weight), kWeightMax));
      }
    }
  }
  if (read.Has("zones")) texts("zones", map.zones);
  if (read.Has("addresses")) texts("addresses", map.addresses);
  RETURN_IF_ERROR(read.status());
  RETURN_IF_ERROR(Validate(map).WithContext("map"));
  return map;
}

Result<ClusterMap> ParseMembers(const std::vector<std::string>& entries, uint32_t replicas,
                                uint32_t epoch) {
  ClusterMap map;
  map.epoch = epoch;
  map.replicas = replicas;
  size_t weights = 0;
  for (const std::string& entry : entries) {
    std::istringstream words(entry);
    std::string name, word;
    words >> name;
    uint32_t weight = 1;
    std::string zone;
    while (words >> word) {
      const std::string value = word.substr(word.find('=') + 1);
      if (word.starts_with("zone=") && !value.empty()) {
        zone = value;
      } else if (word.starts_with("weight=") &&
                 std::from_chars(value.data(), value.data() + value.size(), weight).ptr ==
                     value.data() + value.size() &&
                 !value.empty()) {
        ++weights;
      } else {
        return InvalidArgument(
            fmt::format("member \"{}\": expected NAME [zone=ZONE] [weight=N]", entry));
      }
    }
    map.members.push_back(name);
    map.weights.push_back(weight);
    if (!zone.empty()) map.zones.push_back(zone);
  }
  if (weights == 0) map.weights.clear();
  RETURN_IF_ERROR(Validate(map));
  return map;
}

}  // namespace engram::table
