#include "memnode/tables/partition_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "common/base/machine_limits.h"
#include "common/base/threads.h"
#include "common/obs/log.h"
#include "common/table/row_check.h"
#include "memnode/tables/arena.h"

namespace engram::memnode {
namespace {

Status LoadPartition(const TableReader& reader, const PartitionPlace& place) {
  const uint32_t row_bytes = reader.row_bytes();
  const size_t stride = table::StoredRowBytes(row_bytes);
  const uint64_t first_row = reader.cut(place.layer_index).FirstRow(place.partition);
  return reader.ReadPartition(place.layer_index, place.partition,
                              [&](uint64_t first, std::span<const std::byte> rows) {
                                SealRows(place.layer_index, first_row + first, rows, row_bytes,
                                         place.stored + first * stride);
                              });
}

Status LoadOrRepair(const TableReader& reader, const PartitionPlace& place,
                    const PartitionLoadOptions& options) {
  const Status loaded = LoadPartition(reader, place);
  if (loaded.code() != Code::kDataLoss || !options.repair) return loaded;
  const Status repaired = options.repair(place.layer_index, place.partition);
  if (!repaired.ok()) {
    return DataLoss(loaded.message() + "; and no repair: " + repaired.message());
  }
  return LoadPartition(reader, place);
}

}  // namespace

std::vector<PartitionPlace> OwnedPartitions(const TablePlan& plan) {
  std::vector<PartitionPlace> places;
  for (uint32_t i = 0; i < plan.layers.size(); ++i) {
    for (const uint32_t partition : plan.layers[i].owned) places.push_back({i, partition, nullptr});
  }
  return places;
}

Status LoadPartitions(const TableReader& reader, const std::vector<PartitionPlace>& places,
                      const PartitionLoadOptions& options) {
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  Status first_error;
  const auto work = [&] {
    for (size_t at = next++; at < places.size() && !failed; at = next++) {
      const bool cancelled = options.cancelled && options.cancelled();
      const Status loaded = cancelled ? Cancelled("loading was cancelled")
                                      : LoadOrRepair(reader, places[at], options);
      if (!loaded.ok()) {
        const std::lock_guard lock(mutex);
        if (!failed.exchange(true)) first_error = loaded;
        return;
      }
      if (options.on_loaded) options.on_loaded(places[at]);
    }
  };
  const size_t wanted =
      options.threads > 0 ? static_cast<size_t>(options.threads) : ThreadsPerCpu(2);
  const ThreadsRun run = RunOnThreads(std::min(wanted, places.size()), "load", work);
  if (!run.shortage.ok()) {
    obs::LogWarn(fmt::format("partitions were loaded by fewer threads threads={} why={}", run.count,
                             run.shortage.message()));
  }
  return first_error;
}

}  // namespace engram::memnode
