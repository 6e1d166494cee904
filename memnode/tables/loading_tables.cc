#include "memnode/tables/loading_tables.h"

#include <fmt/format.h>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "memnode/tables/arena_tables.h"
#include "memnode/tables/partition_loader.h"

namespace engram::memnode {

Result<std::shared_ptr<ServedTables>> LoadingTables::Start(TableParts parts, const StoredRows& rows,
                                                           Arena arena, const ColdOptions& options,
                                                           int threads, obs::Metrics& metrics) {
  ASSIGN_OR_RETURN(auto cache, MakeCache(options, parts.plan));
  std::shared_ptr<LoadingTables> tables(
      new LoadingTables(std::move(parts), rows.reader(), std::move(cache), options, metrics));
  RETURN_IF_ERROR(tables->started());
  tables->arena_ = std::move(arena);
  ASSIGN_OR_RETURN(tables->local_, ShareLocally(tables->arena_));
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  ASSIGN_OR_RETURN(tables->loader_, StartThread("fill memory", [raw = tables.get(), threads] {
                     raw->Load(threads);
                   }));
  return std::shared_ptr<ServedTables>(std::move(tables));
}

LoadingTables::~LoadingTables() {
  stop_ = true;
  if (loader_.joinable()) loader_.join();
}

void LoadingTables::Load(int threads) {
  PartitionLoadOptions load;
  load.threads = threads;
  load.cancel = &stop_;
  load.on_loaded = [this](const PartitionPlace& place) {
    residency().Publish(place.layer_index, place.partition, place.stored);
  };
  const Status loaded = LoadPartitions(origin(), PlacesIn(arena_, plan()), load);
  const std::string name = fmt::format("model={} version={}", identity().model, identity().version);
  if (loaded.ok()) {
    SetComplete();
    obs::LogInfo(fmt::format("all rows are in memory {}", name));
  } else if (loaded.code() != Code::kCancelled) {
    obs::LogError(fmt::format("loading ended, rows are read from the store from now on {} why={}",
                              name, loaded.message()));
  }
}

}  // namespace engram::memnode
