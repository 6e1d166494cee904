#include "memnode/tables/residency.h"

#include <algorithm>
#include <array>
#include <mutex>

namespace engram::memnode {

Residency::Residency(const TablePlan& plan) : map_(plan.Map()) {
  for (const LayerPlan& layer : plan.layers) {
    partitions_.push_back(std::vector<Partition>(layer.cut.partition_count));
  }
}

Status Residency::Find(uint32_t layer_index, std::span<const uint64_t> rows,
                       std::span<const std::byte*> addresses) const {
  std::array<uint64_t, 64> offsets;
  for (size_t at = 0; at < rows.size(); at += offsets.size()) {
    const auto some = rows.subspan(at, std::min(offsets.size(), rows.size() - at));
    RETURN_IF_ERROR(map_.FindOffsets(layer_index, some, std::span(offsets).first(some.size())));
  }
  const table::LayerPartitions& cut = map_.layer(layer_index).cut;
  const std::vector<Partition>& partitions = partitions_[layer_index];
  const uint64_t stride = map_.stored_row_bytes();
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint32_t index = cut.PartitionOf(rows[i]);
    const Partition& partition = partitions[index];
    partition.reads.fetch_add(1, std::memory_order_relaxed);
    const std::byte* first_row = partition.first_row.load(std::memory_order_acquire);
    addresses[i] =
        first_row == nullptr ? nullptr : first_row + (rows[i] - cut.FirstRow(index)) * stride;
  }
  return OkStatus();
}

void Residency::Publish(uint32_t layer_index, uint32_t partition, const std::byte* first_row) {
  partitions_[layer_index][partition].first_row.store(first_row, std::memory_order_release);
}

void Residency::Withdraw(uint32_t layer_index, uint32_t partition) {
  partitions_[layer_index][partition].first_row.store(nullptr, std::memory_order_release);
  const std::lock_guard nobody_uses_it(in_use_);
}

bool Residency::resident(uint32_t layer_index, uint32_t partition) const {
  return partitions_[layer_index][partition].first_row.load(std::memory_order_acquire) != nullptr;
}

uint64_t Residency::TakeReads(uint32_t layer_index, uint32_t partition) {
  return partitions_[layer_index][partition].reads.exchange(0, std::memory_order_relaxed);
}

}  // namespace engram::memnode
