#include "memnode/ctl/cluster/move_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/table/owners.h"
#include "memnode/store/table_plan.h"

namespace engram::ctl {
namespace {

MemberMove& MoveOf(MovePlan& plan, const std::string& member) {
  const auto found = std::ranges::find(plan.members, member, &MemberMove::member);
  if (found != plan.members.end()) return *found;
  plan.members.emplace_back().member = member;
  return plan.members.back();
}

std::string Bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= uint64_t{10} << 30) return fmt::format("{:.1f} GiB", value / (1 << 30));
  return fmt::format("{:.1f} MiB", value / (1 << 20));
}

}  // namespace

uint64_t MovePlan::bytes_moved() const {
  uint64_t sum = 0;
  for (const MemberMove& move : members) sum += move.bytes_gained;
  return sum;
}

Result<MovePlan> PlanMove(const table::ClusterMap& before, const table::ClusterMap& after,
                          const std::vector<table::TableIdentity>& versions) {
  MovePlan plan;
  for (const std::string& member : before.members) MoveOf(plan, member);
  for (const std::string& member : after.members) MoveOf(plan, member);
  for (const table::TableIdentity& version : versions) {
    ASSIGN_OR_RETURN(const table::RowFormat format, memnode::FormatOf(version));
    std::vector<table::LayerPartitions> cuts;
    for (const auto& layer : version.layers) {
      cuts.push_back(table::CutLayer(layer.total_rows, format.row_bytes()));
    }
    const table::OwnerTable was(before, cuts), is(after, cuts);
    for (uint32_t layer = 0; layer < cuts.size(); ++layer) {
      for (uint32_t partition = 0; partition < cuts[layer].partition_count; ++partition) {
        const uint64_t bytes = cuts[layer].RowCount(partition) * format.row_bytes();
        const auto owned_before = [&](const std::string& name) {
          return std::ranges::any_of(was.Of(layer, partition),
                                     [&](uint16_t owner) { return before.members[owner] == name; });
        };
        for (const uint16_t owner : was.Of(layer, partition)) {
          MemberMove& move = MoveOf(plan, before.members[owner]);
          ++move.partitions_before;
          move.bytes_before += bytes;
        }
        for (const uint16_t owner : is.Of(layer, partition)) {
          MemberMove& move = MoveOf(plan, after.members[owner]);
          ++move.partitions_after;
          move.bytes_after += bytes;
          if (!owned_before(after.members[owner])) move.bytes_gained += bytes;
        }
      }
    }
  }
  return plan;
}

std::string MoveTable(const MovePlan& plan, uint64_t mib_per_s) {
  std::string table = fmt::format("{:<16} {:>12} {:>12} {:>14} {:>14} {:>14}\n", "member",
                                  "partitions", "afterwards", "rows", "afterwards", "to copy");
  uint64_t most = 0;
  for (const MemberMove& move : plan.members) {
    table += fmt::format("{:<16} {:>12} {:>12} {:>14} {:>14} {:>14}\n", move.member,
                         move.partitions_before, move.partitions_after, Bytes(move.bytes_before),
                         Bytes(move.bytes_after), Bytes(move.bytes_gained));
    most = std::max(most, move.bytes_gained);
  }
  table += fmt::format("{} are copied", Bytes(plan.bytes_moved()));
  if (mib_per_s > 0) {
    table += fmt::format(", in about {:.0f} s at {} MiB/s for each member",
                         static_cast<double>(most) / 1048576.0 / static_cast<double>(mib_per_s),
                         mib_per_s);
  }
  return table + "\n";
}

}  // namespace engram::ctl
