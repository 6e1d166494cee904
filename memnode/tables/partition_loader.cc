#include "memnode/tables/partition_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "common/base/machine_limits.h"
#include "common/base/threads.h"
#include "common/obs/log.h"

namespace engram::memnode {

std::vector<PartitionPlace> OwnedPartitions(const TablePlan& plan) {
  std::vector<PartitionPlace> places;
  for (uint32_t i = 0; i < plan.layers.size(); ++i) {
    for (const uint32_t partition : plan.layers[i].owned) places.push_back({i, partition, nullptr});
  }
  return places;
}

std::vector<PartitionPlace> PlacesIn(Arena& arena, const TablePlan& plan) {
  std::vector<PartitionPlace> places = OwnedPartitions(plan);
  for (PartitionPlace& place : places) {
    place.stored = arena.PartitionRows(place.layer_index, place.partition);
  }
  return places;
}

Status LoadPartitions(const RowOrigin& origin, const std::vector<PartitionPlace>& places,
                      const PartitionLoadOptions& options) {
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  Status first_error;
  const auto work = [&] {
    for (size_t at = next++; at < places.size() && !failed; at = next++) {
      const bool cancelled = options.cancel != nullptr && *options.cancel;
      const Status loaded =
          cancelled ? Cancelled("loading was cancelled") : origin.Load(places[at]);
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
