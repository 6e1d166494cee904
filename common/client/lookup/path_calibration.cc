#include "common/client/lookup/path_calibration.h"

#include <algorithm>

#include "common/base/rng.h"

namespace engram::client {
namespace {

constexpr uint32_t kFewRows = 24;  // a token's rows of one layer
constexpr uint32_t kManyRows = 1536;
constexpr int kRounds = 7;  // the fastest counts: the others were disturbed

// Makes every request take one path while it lives.
class ForcePath {
 public:
  ForcePath(LookupLoop& loop, Path path) : loop_(loop) {
    for (size_t node = 0; node < loop.node_count(); ++node) {
      NodePaths& paths = loop.paths(node);
      before_.push_back(paths.forced);
      paths.forced = paths.is_open(path) ? path : Path::kGather;
    }
  }
  ~ForcePath() {
    for (size_t node = 0; node < before_.size(); ++node) loop_.paths(node).forced = before_[node];
  }
  ForcePath(const ForcePath&) = delete;
  ForcePath& operator=(const ForcePath&) = delete;

 private:
  LookupLoop& loop_;
  std::vector<PathChoice> before_;
};

// Up to `count` distinct rows of the node, all of one layer; none when it owns nothing.
struct Sample {
  uint32_t layer_index = 0;
  std::vector<uint64_t> rows;
};
Sample RowsOf(const PlanContext& context, uint16_t node, uint32_t count) {
  Sample sample;
  for (uint32_t i = 0; i < context.owners.size() && sample.rows.empty(); ++i) {
    const table::LayerPartitions& cut = context.partitions[i];
    uint64_t owned_rows = 0;
    std::vector<uint32_t> owned;
    for (uint32_t partition = 0; partition < cut.partition_count; ++partition) {
      if (context.owners[i][partition] != node) continue;
      owned.push_back(partition);
      owned_rows += cut.RowCount(partition);
    }
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

Result<Nanos> FastestLookup(RowSource& source, const Sample& sample, uint32_t count,
                            std::span<std::byte> out, TimePoint deadline, const Clock& clock) {
  LayerLookup lookup;
  lookup.layer_index = sample.layer_index;
  lookup.rows = std::span(sample.rows).first(count);
  lookup.out = out;
  Nanos fastest = Nanos::max();
  for (int round = 0; round < kRounds; ++round) {
    const TimePoint begin = clock.Now();
    ASSIGN_OR_RETURN(const auto ticket, source.Submit({&lookup, 1}, deadline));
    RETURN_IF_ERROR(ticket->Wait(sample.layer_index).WithContext("timing the paths to the nodes"));
    fastest = std::min<Nanos>(fastest, clock.Now() - begin);
  }
  return fastest;
}

}  // namespace

Status CheckKnownPaths(RowSource& source, LookupLoop& loop, const std::vector<KnownRow>& known,
                       const table::TableLayout& layout, TimePoint deadline) {
  for (const Path path : {Path::kLocal, Path::kGather, Path::kOneSided}) {
    bool open = false;
    for (size_t node = 0; node < loop.node_count(); ++node) {
      const NodePaths& paths = loop.paths(node);
      open = open || (paths.is_open(path) && (!paths.forced || *paths.forced == path));
    }
    if (!open) continue;
    const ForcePath force(loop, path);
    RETURN_IF_ERROR(CheckKnownRows(source, known, layout, deadline));
  }
  return OkStatus();
}

Status CalibratePaths(RowSource& source, LookupLoop& loop, const PlanContext& context,
                      TimePoint deadline, const Clock& clock) {
  const size_t row_bytes = context.layout.row_format.row_bytes();
  for (size_t node = 0; node < loop.node_count(); ++node) {
    NodePaths& paths = loop.paths(node);
    if (paths.forced || paths.open_count() < 2) continue;
    const Sample sample = RowsOf(context, static_cast<uint16_t>(node), kManyRows);
    const auto many_rows = static_cast<uint32_t>(sample.rows.size());
    if (many_rows == 0) continue;
    const uint32_t few_rows = std::min(kFewRows, many_rows);
    std::vector<std::byte> out(many_rows * row_bytes);
    for (size_t i = 0; i < kPathCount; ++i) {
      if (!paths.open[i]) continue;
      const ForcePath force(loop, static_cast<Path>(i));
      ASSIGN_OR_RETURN(const Nanos few,
                       FastestLookup(source, sample, few_rows,
                                     std::span(out).first(few_rows * row_bytes), deadline, clock));
      ASSIGN_OR_RETURN(const Nanos many,
                       FastestLookup(source, sample, many_rows, out, deadline, clock));
      paths.costs[i] = FitCost(few_rows, few, many_rows, many);
    }
  }
  return OkStatus();
}

}  // namespace engram::client
