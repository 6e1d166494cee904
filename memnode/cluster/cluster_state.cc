#include "memnode/cluster/cluster_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "common/io/object_reader.h"

namespace engram::memnode {
namespace {

constexpr std::string_view kStateText = "cluster state";

std::string Describe(const table::ClusterMap& map) {
  return fmt::format("epoch {} of [{}] with {} replicas", map.epoch, fmt::join(map.members, ", "),
                     map.replicas);
}

Status NothingUnderWay() { return FailedPrecondition("no change of the cluster is under way"); }

Status CheckChangedMap(const ClusterState& before, const ClusterState& after) {
  if (before.next) {
    const bool cancelled = after.current == before.current && !after.next;
    const bool committed = after.current == *before.next && !after.next;
    if (cancelled || committed) return OkStatus();
    return FailedPrecondition(fmt::format(
        "a change of the cluster is under way: {}; wait for it, or end it with engramctl cancel",
        before.change));
  }
  if (!after.next) {
    return NothingUnderWay();
  }
  // The first change tells the addresses, too.
  const bool same = before.current.addresses.empty()
                        ? table::SamePlacement(after.current, before.current)
                        : after.current == before.current;
  if (!same) {
    return FailedPrecondition(fmt::format("the cluster is at {}, not at {}",
                                          Describe(before.current), Describe(after.current)));
  }
  return OkStatus();
}

}  // namespace

json::object ToJson(const ClusterState& state) {
  json::object object = {{"cluster", state.cluster},
                         {"revision", std::to_string(state.revision)},
                         {"current", table::ToJson(state.current)}};
  if (state.next) object["next"] = table::ToJson(*state.next);
  if (!state.change.empty()) object["change"] = state.change;
  return object;
}

Result<ClusterState> StateFromJson(const json::object& object) {
  ClusterState state;
  io::ObjectReader read(object, kStateText);
  read.String("cluster", state.cluster);
  read.Number("revision", state.revision);
  if (read.Has("change")) read.String("change", state.change);
  const json::object& current = read.Object("current");
  RETURN_IF_ERROR(read.status());
  auto map = table::MapFromJson(current);
  if (!map.ok()) return map.status().WithContext(std::string(kStateText));
  state.current = *std::move(map);
  if (read.Has("next")) {
    const json::object& next = read.Object("next");
    RETURN_IF_ERROR(read.status());
    auto next_map = table::MapFromJson(next);
    if (!next_map.ok()) return next_map.status().WithContext(std::string(kStateText));
    state.next = *std::move(next_map);
    if (uint64_t{state.next->epoch} != uint64_t{state.current.epoch} + 1) {
      return InvalidArgument(fmt::format("{}: epoch {} is to follow epoch {}", kStateText,
                                         state.next->epoch, state.current.epoch));
    }
  }
  if (state.change.size() > kChangeTextBytesMax || state.cluster.size() > kChangeTextBytesMax) {
    return InvalidArgument(
        fmt::format("{}: texts of at most {} bytes", kStateText, kChangeTextBytesMax));
  }
  return state;
}

Status CheckStep(const ClusterState& before, const ClusterState& after) {
  if (!before.cluster.empty() && before.cluster != after.cluster) {
    return FailedPrecondition(fmt::format(
        "the state is of cluster {}, this member is of cluster {}", after.cluster, before.cluster));
  }
  if (after.cluster.empty()) return FailedPrecondition("a proposal needs the cluster's id");
  RETURN_IF_ERROR(CheckChangedMap(before, after));
  if (after.revision != before.revision + 1) {
    return FailedPrecondition(
        fmt::format("revision {} of the cluster's state is proposed, but {} "
                    "is in force: read it again",
                    after.revision, before.revision));
  }
  if (after.next && after.next->epoch != after.current.epoch + 1) {
    return FailedPrecondition(
        fmt::format("epoch {} is proposed after epoch {}", after.next->epoch, after.current.epoch));
  }
  return OkStatus();
}

Result<ClusterState> Begin(const ClusterState& state, table::ClusterMap next, std::string change) {
  ClusterState after = state;
  after.revision = state.revision + 1;
  next.epoch = state.current.epoch + 1;
  after.next = std::move(next);
  after.change = std::move(change);
  RETURN_IF_ERROR(CheckStep(state, after));
  return after;
}

Result<ClusterState> Commit(const ClusterState& state) {
  ClusterState after = state;
  after.revision = state.revision + 1;
  if (!state.next) return NothingUnderWay();
  after.current = *std::exchange(after.next, std::nullopt);
  after.change.clear();
  RETURN_IF_ERROR(CheckStep(state, after));
  return after;
}

Result<ClusterState> Cancel(const ClusterState& state) {
  ClusterState after = state;
  if (!state.next) return NothingUnderWay();
  after.revision = state.revision + 1;
  after.next.reset();
  after.change.clear();
  RETURN_IF_ERROR(CheckStep(state, after));
  return after;
}

}  // namespace engram::memnode
