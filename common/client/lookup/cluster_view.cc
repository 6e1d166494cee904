#include "common/client/lookup/cluster_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "common/table/row_check.h"

namespace engram::client {
namespace {

constexpr size_t kBlockRows = 512;  // addresses computed at a time

struct Block {
  std::array<const std::byte*, kBlockRows> addresses;
  std::array<uint32_t, kBlockRows> places;  // 0, 1, 2 ...
};

using NodeRows = std::array<uint32_t, table::kMembersMax>;

// Where the block's rows lie, each in its owner's memory; counts them by owner.
Status FindBlock(const PlanContext& context, const ClusterView& view, uint32_t layer_index,
                 std::span<const uint64_t> rows, Block& block, NodeRows& counts) {
  if (view.size() == 1) {
    const NodePaths& paths = *view[0].paths;
    counts[0] += static_cast<uint32_t>(rows.size());
    return paths.arena.Find(layer_index, rows, paths.mapped->data(),
                            std::span(block.addresses).first(rows.size()));
  }
  const uint64_t total_rows = context.partitions[layer_index].total_rows;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] >= total_rows) {
      return OutOfRange(fmt::format("row {} of layer {}, which has {} rows", rows[i],
                                    context.LayerId(layer_index), total_rows));
    }
    const uint16_t owner = context.OwnersOf(layer_index, rows[i])[0];
    const NodePaths& paths = *view[owner].paths;
    RETURN_IF_ERROR(paths.arena.Find(layer_index, rows.subspan(i, 1), paths.mapped->data(),
                                     {&block.addresses[i], 1}));
    ++counts[owner];
  }
  return OkStatus();
}

}  // namespace

bool AllLocal(const ClusterView& view, size_t rows) {
  const auto rows_of_one = static_cast<uint32_t>(rows / view.size() + 1);
  return std::all_of(view.begin(), view.end(), [&](const NodeView& node) {
    return node.gone.ok() && node.paths->Choose(rows_of_one) == Path::kLocal;
  });
}

Status GatherLocally(const PlanContext& context, const ClusterView& view,
                     std::span<NodeCounters> counters, const LayerLookup& lookup) {
  const uint32_t row_bytes = context.layout.row_format.row_bytes();
  Block block;
  NodeRows counts;
  std::fill_n(counts.begin(), view.size(), 0u);
  std::iota(block.places.begin(), block.places.end(), 0u);
  for (size_t first = 0; first < lookup.rows.size(); first += kBlockRows) {
    const std::span<const uint64_t> rows =
        lookup.rows.subspan(first, std::min(kBlockRows, lookup.rows.size() - first));
    RETURN_IF_ERROR(FindBlock(context, view, lookup.layer_index, rows, block, counts));
    std::byte* const out = lookup.out.data() + first * row_bytes;
    const size_t good =
        context.check_rows
            ? table::CopyCheckedRows(lookup.layer_index, rows, block.addresses.data(), row_bytes,
                                     block.places.data(), out)
            : table::CopyUncheckedRows(std::span(block.addresses).first(rows.size()), row_bytes,
                                       block.places.data(), out);
    if (good == rows.size()) continue;
    const uint16_t owner = context.OwnersOf(lookup.layer_index, rows[good])[0];
    context.ReportDamaged(owner, lookup.layer_index, rows[good]);
    return DataLoss(
        fmt::format("memory node {}: row {} of layer {} is damaged in its shared memory",
                    context.node_labels[owner], rows[good], context.LayerId(lookup.layer_index)));
  }
  for (size_t node = 0; node < view.size(); ++node) {
    if (counts[node] == 0) continue;
    counters[node].requests.fetch_add(1, std::memory_order_relaxed);
    counters[node].Add(Path::kLocal, counts[node], table::StoredRowBytes(row_bytes));
  }
  return OkStatus();
}

Status PlaceLocally(Step& step, const NodeRequest& request, const NodePaths& paths,
                    NodeCounters& counters) {
  counters.requests.fetch_add(1, std::memory_order_relaxed);
  std::array<uint64_t, kPlacedRowsMax> ids;
  std::array<const std::byte*, kPlacedRowsMax> addresses;
  for (const Section& section : request.sections) {
    const auto section_rows = static_cast<uint32_t>(section.rows.size());
    for (uint32_t first = 0; first < section_rows; first += kPlacedRowsMax) {
      const uint32_t count = std::min(kPlacedRowsMax, section_rows - first);
      step.plan().CopyIds(section, first, std::span(ids).first(count));
      RETURN_IF_ERROR(paths.arena.Find(section.layer_index, std::span(ids).first(count),
                                       paths.mapped->data(), std::span(addresses).first(count)));
      RETURN_IF_ERROR(
          step.PlaceRows({request.node, section, first, std::span(addresses).first(count)},
                         Path::kLocal, counters));
    }
  }
  return OkStatus();
}

}  // namespace engram::client
