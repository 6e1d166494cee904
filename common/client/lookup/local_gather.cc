#include "common/client/lookup/local_gather.h"

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
Status FindBlock(const PlanContext& context, std::span<const LocalNode> nodes, uint32_t layer_index,
                 std::span<const uint64_t> rows, Block& block, NodeRows& counts) {
  if (nodes.size() == 1) {
    const NodePaths& paths = *nodes[0].paths;
    counts[0] += static_cast<uint32_t>(rows.size());
    return paths.arena.Find(layer_index, rows, paths.mapped.data(),
                            std::span(block.addresses).first(rows.size()));
  }
  const table::LayerPartitions partitions = context.partitions[layer_index];
  const std::vector<uint16_t>& owners = context.owners[layer_index];
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] >= partitions.total_rows) {
      return OutOfRange(fmt::format("row {} of layer {}, which has {} rows", rows[i],
                                    context.layout.layers[layer_index].layer_id,
                                    partitions.total_rows));
    }
    const uint16_t owner = owners[partitions.PartitionOf(rows[i])];
    const NodePaths& paths = *nodes[owner].paths;
    RETURN_IF_ERROR(paths.arena.Find(layer_index, rows.subspan(i, 1), paths.mapped.data(),
                                     {&block.addresses[i], 1}));
    ++counts[owner];
  }
  return OkStatus();
}

void Count(std::span<const LocalNode> nodes, const NodeRows& counts, uint32_t stored_row_bytes) {
  for (size_t node = 0; node < nodes.size(); ++node) {
    if (counts[node] == 0) continue;
    NodeCounters& counters = *nodes[node].counters;
    counters.requests.fetch_add(1, std::memory_order_relaxed);
    counters.rows_fetched.fetch_add(counts[node], std::memory_order_relaxed);
    counters.bytes_fetched.fetch_add(uint64_t{counts[node]} * stored_row_bytes,
                                     std::memory_order_relaxed);
    counters.rows_by_path[static_cast<size_t>(Path::kLocal)].fetch_add(counts[node],
                                                                       std::memory_order_relaxed);
  }
}

}  // namespace

Status GatherLocally(const PlanContext& context, std::span<const LocalNode> nodes,
                     const LayerLookup& lookup) {
  const uint32_t row_bytes = context.layout.row_format.row_bytes();
  Block block;
  NodeRows counts;
  std::fill_n(counts.begin(), nodes.size(), 0u);
  std::iota(block.places.begin(), block.places.end(), 0u);
  for (size_t first = 0; first < lookup.rows.size(); first += kBlockRows) {
    const std::span<const uint64_t> rows =
        lookup.rows.subspan(first, std::min(kBlockRows, lookup.rows.size() - first));
    RETURN_IF_ERROR(FindBlock(context, nodes, lookup.layer_index, rows, block, counts));
    const size_t good =
        table::CopyCheckedRows(lookup.layer_index, rows, block.addresses.data(), row_bytes,
                               block.places.data(), lookup.out.data() + first * row_bytes);
    if (good == rows.size()) continue;
    context.ReportDamaged(lookup.layer_index, rows[good]);
    const uint32_t partition = context.partitions[lookup.layer_index].PartitionOf(rows[good]);
    return DataLoss(
        fmt::format("memory node {}: row {} of layer {} is damaged in its shared memory",
                    context.node_labels[context.owners[lookup.layer_index][partition]], rows[good],
                    context.layout.layers[lookup.layer_index].layer_id));
  }
  Count(nodes, counts, table::StoredRowBytes(row_bytes));
  return OkStatus();
}

}  // namespace engram::client
