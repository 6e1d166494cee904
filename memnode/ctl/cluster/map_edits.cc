#include "memnode/ctl/cluster/map_edits.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace engram::ctl {
namespace {

Result<size_t> IndexOf(const table::ClusterMap& map, const std::string& name) {
  const auto found = std::ranges::find(map.members, name);
  if (found != map.members.end()) return static_cast<size_t>(found - map.members.begin());
  return InvalidArgument(
      fmt::format("\"{}\" is no member of [{}]", name, fmt::join(map.members, ", ")));
}

// Written down for each member, so that one can be changed.
void SpellWeights(table::ClusterMap& map) {
  if (map.weights.empty()) map.weights.assign(map.members.size(), 1);
}

Result<table::ClusterMap> Checked(table::ClusterMap map) {
  if (std::ranges::all_of(map.weights, [](uint32_t weight) { return weight == 1; })) {
    map.weights.clear();
  }
  RETURN_IF_ERROR(table::Validate(map));
  return map;
}

template <typename T>
void Erase(std::vector<T>& list, size_t index) {
  if (!list.empty()) list.erase(list.begin() + static_cast<ptrdiff_t>(index));
}

}  // namespace

Result<table::ClusterMap> WithMember(table::ClusterMap map, const NewMember& added) {
  if (table::HasMember(map, added.name)) {
    return InvalidArgument(fmt::format("\"{}\" is a member already", added.name));
  }
  if (map.zones.empty() != added.zone.empty()) {
    return InvalidArgument(
        added.zone.empty()
            ? fmt::format("the members have zones: give {} one, too", added.name)
            : fmt::format("the members have no zones, so {} cannot have one", added.name));
  }
  SpellWeights(map);
  map.members.push_back(added.name);
  map.weights.push_back(added.weight);
  map.addresses.push_back(added.address);
  if (!added.zone.empty()) map.zones.push_back(added.zone);
  return Checked(std::move(map));
}

Result<table::ClusterMap> WithoutMember(table::ClusterMap map, const std::string& name) {
  ASSIGN_OR_RETURN(const size_t index, IndexOf(map, name));
  Erase(map.members, index);
  Erase(map.weights, index);
  Erase(map.zones, index);
  Erase(map.addresses, index);
  if (map.members.size() < map.replicas) {
    return FailedPrecondition(fmt::format(
        "{} members would be left for {} replicas: engramctl set-replicas {} first, or add one",
        map.members.size(), map.replicas, map.replicas - 1));
  }
  return Checked(std::move(map));
}

Result<table::ClusterMap> WithReplicas(table::ClusterMap map, uint32_t replicas) {
  map.replicas = replicas;
  return Checked(std::move(map));
}

Result<table::ClusterMap> WithWeights(
    table::ClusterMap map, const std::vector<std::pair<std::string, uint32_t>>& weights) {
  SpellWeights(map);
  for (const auto& [name, weight] : weights) {
    ASSIGN_OR_RETURN(const size_t index, IndexOf(map, name));
    if (weight < 1 || weight > table::kWeightMax) {
      return InvalidArgument(
          fmt::format("weight {} of {}, expected 1 to {}", weight, name, table::kWeightMax));
    }
    map.weights[index] = weight;
  }
  return Checked(std::move(map));
}

}  // namespace engram::ctl
