// What a cluster of many members costs, without starting one: bytes of its state, time to compute
// owners and to plan a step, connections, and bytes that a change moves. Prints the table of
// memnode/CLUSTER.md.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <vector>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/client/lookup/plan.h"
#include "common/io/json.h"
#include "common/table/procedural.h"
#include "memnode/cluster/cluster_state.h"
#include "memnode/ctl/cluster/map_edits.h"
#include "memnode/ctl/cluster/move_plan.h"

namespace engram {
namespace {

constexpr int kRounds = 9;
constexpr uint64_t kPushedBytes = 31;  // one frame of news (common/net/control/messages.h)

table::ClusterMap MapOf(size_t members) {
  table::ClusterMap map;
  map.replicas = 2;
  for (size_t i = 0; i < members; ++i) {
    map.members.push_back(fmt::format("memory-{:04}", i));
    map.addresses.push_back(fmt::format("10.{}.{}.7:7400", i / 250, i % 250));
    map.weights.push_back(1 + static_cast<uint32_t>(i % 4));
    if (members >= 8) map.zones.push_back(fmt::format("zone-{}", i % 8));
  }
  return map;
}

// The median of `body`'s times.
template <typename Body>
double Micros(const Body& body) {
  std::vector<double> times;
  for (int round = 0; round < kRounds; ++round) {
    const TimePoint begin = Clock::Real().Now();
    body();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::Real().Now() - begin).count());
  }
  std::ranges::sort(times);
  return times[kRounds / 2];
}

// One step of so many tokens: 24 rows of each of two layers for each.
double PlanMicros(const std::shared_ptr<const client::PlanContext>& context, size_t members,
                  size_t tokens) {
  const size_t rows_per_layer = tokens * 24;
  const uint32_t row_bytes = context->layout.row_format.row_bytes();
  Rng rng(tokens);
  std::vector<std::vector<uint64_t>> rows(context->layout.layers.size());
  std::vector<std::byte> out(rows_per_layer * row_bytes);
  std::vector<client::LayerLookup> lookups;
  for (uint32_t layer = 0; layer < rows.size(); ++layer) {
    for (size_t i = 0; i < rows_per_layer; ++i) {
      rows[layer].push_back(rng.NextBelow(context->layout.layers[layer].total_rows));
    }
    lookups.push_back({layer, rows[layer], out});
  }
  client::LookupPlan plan(context);
  return Micros([&] {
    client::NodeCosts costs(members);
    CHECK(plan.Make(lookups, costs).ok());
  });
}

int Run() {
  const table::ProceduralSpec spec = {.layout = "v41", .rows_scale = 1, .seed = 1};
  const table::TableLayout layout = *table::MakeProceduralLayout(spec);
  const table::TableIdentity identity = table::MakeProceduralIdentity(spec, layout);
  fmt::print("{:>8} {:>12} {:>11} {:>12} {:>11} {:>12} {:>13} {:>12} {:>13} {:>12}\n", "members",
             "state bytes", "owners ms", "owners bytes", "1 token us", "64 tokens us",
             "2048 tokens us", "connections", "push kB", "moved share");
  for (const size_t members : {3, 16, 64, 1000}) {
    const table::ClusterMap map = MapOf(members);
    memnode::ClusterState state;
    state.cluster = std::string(32, 'c');
    state.revision = 1;
    state.current = map;
    const double owners_us = Micros([&] { client::MakePlanContext(layout, map, map.members); });
    const auto context = std::make_shared<const client::PlanContext>(
        client::MakePlanContext(layout, map, map.members));
    size_t partitions = 0;
    for (const auto& cut : context->partitions) partitions += cut.partition_count;
    const auto grown = ctl::WithMember(map, {.name = "added",
                                             .address = "10.9.9.9:7400",
                                             .zone = map.zones.empty() ? "" : map.zones[0]});
    CHECK(grown.ok()) << grown.status().message();
    const auto move = ctl::PlanMove(map, *grown, {identity});
    CHECK(move.ok()) << move.status().message();
    uint64_t held = 0;
    for (const ctl::MemberMove& one : move->members) held += one.bytes_after;
    fmt::print(
        "{:>8} {:>12} {:>11.1f} {:>12} {:>11.1f} {:>12.1f} {:>13.1f} {:>12} {:>13.1f} "
        "{:>12.5f}\n",
        members, json::serialize(memnode::ToJson(state)).size(), owners_us / 1e3,
        partitions * map.replicas * sizeof(uint16_t), PlanMicros(context, members, 1),
        PlanMicros(context, members, 64), PlanMicros(context, members, 2048), 2 * members,
        static_cast<double>(members * kPushedBytes) / 1e3,
        static_cast<double>(move->bytes_moved()) / static_cast<double>(held));
  }
  return 0;
}

}  // namespace
}  // namespace engram

int main() { return engram::Run(); }
