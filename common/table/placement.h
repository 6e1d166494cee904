// How layers are cut into partitions, and the members of the cluster that share them (owners.h says
// which member holds which). Frozen by golden vectors; nothing here depends on a library's
// behaviour.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/table/layout.h"

namespace engram::table {

// Rows are stored in pages of about 4 KiB: as many rows as fit beside an 8-byte trailer (15 rows of
// 264 B).
uint32_t RowsPerPage(uint32_t row_bytes);

// A layer is cut into partitions of 2^k whole pages: the largest k <= 12 (16 MiB) that leaves at
// least 64 partitions, or k = 0. The last partition may be short.
struct LayerPartitions {
  uint64_t total_rows = 0;
  uint32_t rows_per_page = 0;
  uint64_t rows_per_partition = 0;
  uint32_t partition_count = 0;

  uint64_t reciprocal = 0;  // ceil(2^64 / rows_per_partition), modulo 2^64

  // row / rows_per_partition by one multiplication: with d rows a partition and r the reciprocal,
  // (row * r) >> 64 is exact while row * (r * d - 2^64) < 2^64, and r * d - 2^64 < d. CutLayer
  // checks that total_rows * d < 2^64.
  uint32_t PartitionOf(uint64_t row) const {
    if (reciprocal == 0) return static_cast<uint32_t>(row);  // one row a partition
    return static_cast<uint32_t>((static_cast<unsigned __int128>(row) * reciprocal) >> 64);
  }
  uint64_t FirstRow(uint32_t partition) const { return partition * rows_per_partition; }
  uint64_t RowCount(uint32_t partition) const;
};
LayerPartitions CutLayer(uint64_t total_rows, uint32_t row_bytes);

// Small enough to send on connect. Members are named, in a fixed order.
struct ClusterMap {
  uint32_t epoch = 1;
  std::vector<std::string> members;
  uint32_t replicas = 1;                // owners of each partition
  std::vector<uint32_t> weights = {};   // shares of the rows, per member; empty: all alike
  std::vector<std::string> zones = {};  // what fails together, per member; empty: each by itself
  // Where each member's control port is, "host:port"; empty: clients and tools have to know.
  std::vector<std::string> addresses = {};
  bool operator==(const ClusterMap&) const = default;
};
inline constexpr size_t kMembersMax = 1024;
inline constexpr uint32_t kReplicasMax = 8;
inline constexpr uint32_t kWeightMax = 65535;
// 1..kMembersMax members, no name empty or twice; 1..kReplicasMax replicas, no more than members;
// weights 1..kWeightMax, zones and addresses for each member or for none.
Status Validate(const ClusterMap& map);

// Whether both place each row alike and are of one epoch: addresses may differ.
bool SamePlacement(ClusterMap a, ClusterMap b);
// Whether it is in the map, and its zone there; empty: it has none.
bool HasMember(const ClusterMap& map, std::string_view member);
std::string ZoneOf(const ClusterMap& map, std::string_view member);

// As nodes tell it on connect and keep it in manifests; what is as by default is left out.
json::object ToJson(const ClusterMap& map);
// INVALID_ARGUMENT begins with "map"; also where Validate refuses it.
Result<ClusterMap> MapFromJson(const json::object& object);

// Reads members as settings list them: "NAME [zone=ZONE] [weight=N]", all with a zone or none.
// INVALID_ARGUMENT quotes the entry.
Result<ClusterMap> ParseMembers(const std::vector<std::string>& entries, uint32_t replicas,
                                uint32_t epoch);

}  // namespace engram::table
