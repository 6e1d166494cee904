#include "memnode/upkeep/memory_scrubber.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "memnode/tables/partition_loader.h"

namespace engram::memnode {

MemoryScrubber::Metrics::Metrics(obs::Metrics& registry)
    : bytes(registry.GetCounter("engram_memnode_memory_scrub_bytes_total",
                                "Rows in memory whose checks were compared")),
      passes(registry.GetCounter("engram_memnode_memory_scrub_passes_total",
                                 "Passes over all rows in memory")),
      reports(registry.GetCounter("engram_memnode_damage_reports_total",
                                  "Rows that clients said came damaged")),
      reports_dropped(registry.GetCounter("engram_memnode_memory_reports_dropped_total",
                                          "Of them, beyond what may wait")),
      damaged(registry.GetCounter("engram_memnode_memory_damaged_rows_total",
                                  "Rows found damaged in memory")),
      mended(registry.GetCounter("engram_memnode_memory_mended_rows_total",
                                 "Of them, written again from the store")),
      failures(registry.GetCounter("engram_memnode_memory_mend_failures_total",
                                   "Damaged partitions that could not be loaded again")) {}

MemoryScrubber::MemoryScrubber(const LoadedTables& loaded, Repairer* repairer,
                               obs::Metrics& metrics, const MemoryScrubberOptions& options)
    : loaded_(loaded),
      repairer_(repairer),
      options_(options),
      metrics_(metrics),
      rate_(options.mib_per_s, clock_) {}

Status MemoryScrubber::Start() {
  ASSIGN_OR_RETURN(thread_, StartThread("memory scrub", [this] { Run(); }));
  return OkStatus();
}

MemoryScrubber::~MemoryScrubber() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MemoryScrubber::Report(const std::weak_ptr<const ServedTables>& tables, uint32_t layer_index,
                            uint64_t row) {
  metrics_.reports.Add();
  {
    const std::lock_guard lock(mutex_);
    if (reports_.size() >= options_.reports_max) return metrics_.reports_dropped.Add();
    reports_.push_back({tables, layer_index, row});
  }
  wake_.notify_all();
}

bool MemoryScrubber::stopping() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

// Reports are looked at meanwhile. False: it stops.
bool MemoryScrubber::WaitUntil(TimePoint time) {
  while (true) {
    LookAtReports();
    std::unique_lock lock(mutex_);
    if (stop_) return false;
    if (!reports_.empty()) continue;
    const TimePoint now = clock_.Now();
    if (now >= time) return true;
    wake_.wait_for(lock, time - now);
  }
}

std::unique_lock<std::mutex> MemoryScrubber::Pause() const {
  return repairer_ == nullptr ? std::unique_lock<std::mutex>() : repairer_->Pause();
}

void MemoryScrubber::Run() {
  while (!stopping()) {
    if (options_.mib_per_s > 0) Pass();
    WaitUntil(clock_.Now() + options_.pass_pause);
  }
}

std::vector<MemoryScrubber::WeakTables> MemoryScrubber::AllTables() const {
  const std::unique_lock paused = Pause();
  const std::vector<TablesPtr> loaded = loaded_.All();
  return {loaded.begin(), loaded.end()};
}

std::vector<PartitionPlace> MemoryScrubber::PlacesOf(const WeakTables& weak) const {
  const std::unique_lock paused = Pause();
  const TablesPtr tables = weak.lock();
  return tables == nullptr ? std::vector<PartitionPlace>() : OwnedPartitions(tables->plan());
}

void MemoryScrubber::ForgetDropped() {
  const std::unique_lock paused = Pause();
  const std::vector<TablesPtr> loaded = loaded_.All();
  std::erase_if(failed_, [&](const auto& failed) {
    return std::ranges::none_of(loaded, [&](const TablesPtr& tables) {
      return tables->identity().model == std::get<0>(failed.first) &&
             tables->identity().version == std::get<1>(failed.first);
    });
  });
  unmended_ = failed_.size();
}

void MemoryScrubber::Pass() {
  ForgetDropped();
  for (const WeakTables& tables : AllTables()) {
    for (const PartitionPlace& place : PlacesOf(tables)) {
      const uint64_t bytes = Check(tables, place);
      metrics_.bytes.Add(static_cast<double>(bytes));
      if (!WaitUntil(rate_.Take(bytes))) return;
    }
  }
  metrics_.passes.Add();
}

// Returns the bytes looked at: none of a partition that is not in memory, or no more.
uint64_t MemoryScrubber::Check(const WeakTables& weak, const PartitionPlace& place) {
  std::unique_lock paused = Pause();
  TablesPtr tables = weak.lock();
  std::vector<uint64_t> damaged;
  if (tables == nullptr || !tables->FindDamagedRows(place.layer_index, place.partition, &damaged)) {
    return 0;
  }
  const uint64_t rows = tables->plan().layers[place.layer_index].cut.RowCount(place.partition);
  const uint64_t bytes = rows * tables->stored_row_bytes();
  if (damaged.empty()) {
    tables.reset();  // before others may look for readers
    return bytes;
  }
  if (paused.owns_lock()) paused.unlock();
  Mend(*tables, place.layer_index, place.partition, damaged, "scrub");
  return bytes;
}

void MemoryScrubber::LookAtReports() {
  while (true) {
    RowReport report;
    {
      const std::lock_guard lock(mutex_);
      if (reports_.empty() || stop_) return;
      report = std::move(reports_.front());
      reports_.pop_front();
    }
    LookAt(report);
  }
}

void MemoryScrubber::LookAt(const RowReport& report) {
  std::unique_lock paused = Pause();
  TablesPtr tables = report.tables.lock();
  if (tables == nullptr || report.layer_index >= tables->layer_count()) return;
  const LayerPlan& layer = tables->plan().layers[report.layer_index];
  // Sound also when it was repaired since, or damaged on its way only.
  if (report.row >= layer.cut.total_rows || tables->RowIsSound(report.layer_index, report.row)) {
    tables.reset();
    return;
  }
  const uint32_t partition = layer.cut.PartitionOf(report.row);
  std::vector<uint64_t> damaged;
  tables->FindDamagedRows(report.layer_index, partition, &damaged);
  if (damaged.empty()) damaged.push_back(report.row);  // of the cache
  if (paused.owns_lock()) paused.unlock();
  Mend(*tables, report.layer_index, partition, damaged, "client");
}

void MemoryScrubber::Mend(const ServedTables& tables, uint32_t layer_index, uint32_t partition,
                          const std::vector<uint64_t>& rows, const char* found_by) {
  const table::TableIdentity& identity = tables.identity();
  const Place place(identity.model, identity.version, layer_index, partition);
  const auto failed = failed_.find(place);
  const bool known = failed != failed_.end();
  if (known && clock_.Now() < failed->second) return;
  const std::string where =
      fmt::format("model={} version={} layer={} partition={}", identity.model, identity.version,
                  tables.plan().layers[layer_index].layer_id, partition);
  if (!known) {
    metrics_.damaged.Add(static_cast<double>(rows.size()));
    obs::LogError(fmt::format("rows in memory are damaged {} rows={} first={} found_by={}", where,
                              rows.size(), rows.front(), found_by));
  }
  const Result<uint64_t> mended = tables.Reload(layer_index, partition, rows);
  if (mended.ok()) {
    failed_.erase(place);
    unmended_ = failed_.size();
    metrics_.mended.Add(static_cast<double>(*mended));
    obs::LogInfo(
        fmt::format("rows in memory were written again from the store {} rows={}", where, *mended));
    return;
  }
  metrics_.failures.Add();
  if (!known) {
    obs::LogError(fmt::format("damaged rows stay in memory, where clients refuse them {} why={}",
                              where, mended.status().message()));
  }
  if (known || failed_.size() < options_.failed_max) {
    failed_[place] = clock_.Now() + options_.retry_pause;
    unmended_ = failed_.size();
  }
}

}  // namespace engram::memnode
