#include "common/client/lookup/path_calibration.h"

#include <algorithm>

#include "common/base/rng.h"

namespace engram::client {
namespace {

constexpr uint32_t kFewRows = 24;  // a token's rows of one layer
constexpr uint32_t kManyRows = 1536;
constexpr int kRounds = 7;  // the fastest counts: the others were disturbed

// Up to `count` distinct rows of the node, all of one layer; none when it owns nothing.
struct Sample {
  uint32_t layer_index = 0;
  std::vector<uint64_t> rows;
};
Sample RowsOf(const PlanContext& context, uint16_t node, uint32_t count) {
  Sample sample;
  for (uint32_t i = 0; i < context.partitions.size() && sample.rows.empty(); ++i) {
    const table::LayerPartitions& cut = context.partitions[i];
    uint64_t owned_rows = 0;
    const std::vector<uint32_t> owned = context.owners.OwnedBy(node, i);
    for (const uint32_t partition : owned) owned_rows += cut.RowCount(partition);
    if (owned.empty()) continue;
    Rng rng(node);
    sample.layer_index = i;
    for (uint64_t tries = 0; tries < count && sample.rows.size() < owned_rows; ++tries) {
      const uint32_t partition = owned[rng.NextBelow(owned.size())];
      sample.rows.push_back(cut.FirstRow(partition) + rng.NextBelow(cut.RowCount(partition)));
    }
  }
  std::sort(sample.rows.begin(), sample.rows.end());
  sample.rows.erase(std::unique(sample.rows.begin(), sample.rows.end()), sample.rows.end());
  Rng rng(node + 1u);
  for (size_t i = sample.rows.size(); i > 1; --i) {
    std::swap(sample.rows[i - 1], sample.rows[rng.NextBelow(i)]);
  }
  return sample;
}

Result<Nanos> FastestLookup(LookupLoop& loop, uint32_t node, Path path, const LayerLookup& lookup,
                            TimePoint deadline, const Clock& clock) {
  Nanos fastest = Nanos::max();
  for (int round = 0; round < kRounds; ++round) {
    const TimePoint start = clock.Now();
    RETURN_IF_ERROR(loop.Ask(node, path, lookup, deadline).WithContext("timing lookup paths"));
    fastest = std::min<Nanos>(fastest, clock.Now() - start);
  }
  return fastest;
}

}  // namespace

Result<PathCosts> MeasurePaths(LookupLoop& loop, uint32_t node, const NodePaths& paths,
                               const PlanContext& context, TimePoint deadline, const Clock& clock) {
  PathCosts costs = {};
  if (paths.forced || paths.open_count() < 2) return costs;
  const size_t row_bytes = context.layout.row_format.row_bytes();
  const Sample sample = RowsOf(context, static_cast<uint16_t>(node), kManyRows);
  const auto many_rows = static_cast<uint32_t>(sample.rows.size());
  if (many_rows == 0) return costs;
  const uint32_t few_rows = std::min(kFewRows, many_rows);
  std::vector<std::byte> out(many_rows * row_bytes);
  const auto first = [&](uint32_t count) {
    return LayerLookup{sample.layer_index, std::span(sample.rows).first(count),
                       std::span(out).first(count * row_bytes)};
  };
  for (size_t i = 0; i < kPathCount; ++i) {
    if (!paths.open[i]) continue;
    const auto path = static_cast<Path>(i);
    ASSIGN_OR_RETURN(const Nanos few,
                     FastestLookup(loop, node, path, first(few_rows), deadline, clock));
    ASSIGN_OR_RETURN(const Nanos many,
                     FastestLookup(loop, node, path, first(many_rows), deadline, clock));
    costs[i] = FitCost(few_rows, few, many_rows, many);
  }
  return costs;
}

}  // namespace engram::client
