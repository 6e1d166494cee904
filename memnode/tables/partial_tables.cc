#include "memnode/tables/partial_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "memnode/tables/arena_tables.h"

namespace engram::memnode {
namespace {

constexpr int kMovesPerPeriod = 4;  // 64 MiB of reads: the disk stays free for cold rows
// A partition takes the place of another one only when it is clearly busier.
constexpr double kBusier = 1.25;
constexpr double kReadsMin = 256;

}  // namespace

PartialTables::PartialTables(ServedParts parts, const StoredRows& rows, RowStore& store,
                             std::unique_ptr<RowCache> cache, const PartialOptions& options,
                             obs::Metrics& metrics)
    : ServedTables(std::move(parts), metrics),
      reader_(rows.reader()),
      store_(store),
      options_(options),
      residency_(plan()),
      cache_(std::move(cache)),
      cold_(reader_, cache_.get(), options.reader) {
  for (const LayerPlan& layer : plan().layers) heat_.emplace_back(layer.cut.partition_count, 0.0);
}

Result<std::shared_ptr<PartialTables>> PartialTables::Make(ServedParts parts,
                                                           const StoredRows& rows, RowStore& store,
                                                           const PartialOptions& options,
                                                           obs::Metrics& metrics) {
  std::unique_ptr<RowCache> cache;
  if (options.cache_bytes > 0) {
    ASSIGN_OR_RETURN(
        cache, RowCache::Create(options.cache_bytes, table::StoredRowBytes(parts.plan.row_bytes)));
  }
  std::shared_ptr<PartialTables> tables(
      new PartialTables(std::move(parts), rows, store, std::move(cache), options, metrics));
  RETURN_IF_ERROR(tables->cold_.started());
  return tables;
}

Result<std::shared_ptr<ServedTables>> PartialTables::Open(ServedParts parts, const StoredRows& rows,
                                                          RowStore& store, PartialOptions options,
                                                          obs::Metrics& metrics) {
  options.cache_bytes = parts.share.Take(options.cache_bytes, 1);
  ASSIGN_OR_RETURN(const auto tables, Make(std::move(parts), rows, store, options, metrics));
  if (!options.pinned.empty()) RETURN_IF_ERROR(tables->Pin());
  if (!options.serve_while_loading) RETURN_IF_ERROR(tables->FillMemory(options.cancel).status());
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  ASSIGN_OR_RETURN(tables->filler_,
                   StartThread("balance", [raw = tables.get()] { raw->KeepBalanced(); }));
  return std::shared_ptr<ServedTables>(tables);
}

Result<std::shared_ptr<ServedTables>> PartialTables::Load(ServedParts parts, const StoredRows& rows,
                                                          RowStore& store, Arena arena,
                                                          const PartialOptions& options,
                                                          obs::Metrics& metrics) {
  ASSIGN_OR_RETURN(const auto tables, Make(std::move(parts), rows, store, options, metrics));
  tables->arena_ = std::move(arena);
  ASSIGN_OR_RETURN(tables->local_, ShareLocally(*tables->arena_));
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  ASSIGN_OR_RETURN(tables->filler_,
                   StartThread("fill memory", [raw = tables.get()] { raw->FillArena(); }));
  return std::shared_ptr<ServedTables>(tables);
}

PartialTables::~PartialTables() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stop_changed_.notify_all();
  origin().GiveUp();
  if (filler_.joinable()) filler_.join();
}

// As many of the wanted rows of this member's share as fit.
Status PartialTables::Pin() {
  const uint64_t taken_bytes = share().Take(share().left() / 2, 1);
  const uint64_t room = PinnedRows::RowsThatFit(taken_bytes, stored_row_bytes());
  std::set<RowId> taken;
  for (const RowId& id : options_.pinned) {
    if (taken.size() >= room) break;
    if (id.layer_index >= layer_count()) continue;
    const LayerPlan& layer = plan().layers[id.layer_index];
    if (id.row >= layer.cut.total_rows) continue;
    const uint32_t partition = layer.cut.PartitionOf(id.row);
    if (!std::binary_search(layer.owned.begin(), layer.owned.end(), partition)) continue;
    taken.insert(id);
  }
  ASSIGN_OR_RETURN(pinned_, PinnedRows::Read(reader_, {taken.begin(), taken.end()}));
  share().GiveBack(taken_bytes - std::min(taken_bytes, pinned_->memory_bytes()));
  return OkStatus();
}

Status PartialTables::Find(uint32_t layer_index, std::span<const uint64_t> rows,
                           std::span<const std::byte*> addresses) const {
  if (complete()) return arena_->Find(layer_index, rows, addresses);
  RETURN_IF_ERROR(residency_.Find(layer_index, rows, addresses));
  if (pinned_ == nullptr) return OkStatus();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (addresses[i] == nullptr) addresses[i] = pinned_->Find(layer_index, rows[i]);
  }
  return OkStatus();
}

uint64_t PartialTables::memory_bytes() const {
  if (arena_) return arena_->size_bytes();
  return options_.cache_bytes + (pinned_ == nullptr ? 0 : pinned_->memory_bytes()) + memory_bytes_;
}

Status PartialTables::LoadInto(const std::vector<PartitionPlace>& places,
                               const std::atomic<bool>* cancel) {
  PartitionLoadOptions load;
  load.threads = options_.load_threads;
  load.cancel = cancel;
  load.on_loaded = [&](const PartitionPlace& place) {
    residency_.Publish(place.layer_index, place.partition, place.stored);
  };
  return LoadPartitions(origin(), places, load);
}

void PartialTables::FillArena() {
  const Status loaded = LoadInto(PlacesIn(*arena_, plan()), &stop_);
  const std::string name = fmt::format("model={} version={}", identity().model, identity().version);
  if (loaded.ok()) {
    SetComplete();
    obs::LogInfo(fmt::format("all rows are in memory {}", name));
  } else if (loaded.code() != Code::kCancelled) {
    obs::LogError(fmt::format("loading ended, rows are read from the store from now on {} why={}",
                              name, loaded.message()));
  }
}

std::string PartialTables::ResidentKey() const {
  return fmt::format("resident/{:016x}", TableSetIdOf(identity().model, identity().version));
}

// Those that were resident last time first: "layer:partition" separated by spaces. A hint: what
// does not fit the plan any more is passed over.
std::vector<PartitionPlace> PartialTables::PreferredOrder() const {
  std::vector<PartitionPlace> order;
  std::set<std::pair<uint32_t, uint32_t>> taken;
  const auto records = store_.ReadRecords(ResidentKey());
  if (records.ok() && !records->empty()) {
    std::istringstream text(records->begin()->second);
    uint32_t layer = 0, partition = 0;
    char colon = 0;
    while (text >> layer >> colon >> partition) {
      if (layer >= plan().layers.size()) continue;
      const std::vector<uint32_t>& owned = plan().layers[layer].owned;
      if (!std::binary_search(owned.begin(), owned.end(), partition)) continue;
      if (taken.emplace(layer, partition).second) order.push_back({layer, partition, nullptr});
    }
  }
  for (const PartitionPlace& place : OwnedPartitions(plan())) {
    if (taken.emplace(place.layer_index, place.partition).second) order.push_back(place);
  }
  return order;
}

Status PartialTables::SaveResident() {
  std::string text;
  for (const Slot& slot : slots_) {
    if (!slot.filled) continue;
    text += fmt::format("{}:{} ", slot.place.layer_index, slot.place.partition);
  }
  const RecordChange record = {ResidentKey(), std::move(text)};
  return store_.WriteProgress({&record, 1});
}

// Takes memory for as many of the partitions that have none as there is room for, and loads them:
// the busiest first, then those that were resident when the node last ran, then others in order.
// Returns how many.
Result<uint64_t> PartialTables::FillMemory(const std::atomic<bool>* cancel) {
  const table::ArenaMap map = plan().Map();
  std::vector<PartitionPlace> order = PreferredOrder();
  uint64_t slot_bytes = 1;
  for (const PartitionPlace& place : order) {
    slot_bytes = std::max(slot_bytes, map.PartitionBytes(place.layer_index, place.partition));
  }
  // Empty slots are for Rebalance to fill.
  const uint64_t wanted = order.size() - std::min(order.size(), slots_.size());
  const uint64_t taken = share().Take(wanted, slot_bytes);
  if (taken == 0) return uint64_t{0};
  auto memory = AlignedBuffer::Allocate(taken * slot_bytes, options_.pages);
  if (!memory.ok()) {
    share().GiveBack(taken * slot_bytes);
    return memory.status().WithContext("memory for this node's rows");
  }
  std::erase_if(order, [&](const PartitionPlace& place) {
    return IsResident(place.layer_index, place.partition);
  });
  std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return heat_[a.layer_index][a.partition] > heat_[b.layer_index][b.partition];
  });
  order.resize(taken);
  for (size_t i = 0; i < taken; ++i) order[i].stored = memory->data() + i * slot_bytes;
  memory_.push_back(std::move(*memory));
  memory_bytes_ += taken * slot_bytes;
  const Status loaded = LoadInto(order, cancel);
  for (const PartitionPlace& place : order) {
    slots_.push_back({place, IsResident(place.layer_index, place.partition)});
  }
  RETURN_IF_ERROR(loaded);
  return taken;
}

void PartialTables::CountReads() {
  for (uint32_t i = 0; i < plan().layers.size(); ++i) {
    for (const uint32_t partition : plan().layers[i].owned) {
      double& heat = heat_[i][partition];
      heat = heat / 2 + static_cast<double>(residency_.TakeReads(i, partition));
    }
  }
}

// The slot's partition goes, the wanted one comes; on an error the slot stays empty.
Status PartialTables::Replace(Slot& slot, const PartitionPlace& wanted) {
  if (slot.filled) residency_.Withdraw(slot.place.layer_index, slot.place.partition);
  slot.filled = false;
  slot.place.layer_index = wanted.layer_index;
  slot.place.partition = wanted.partition;
  RETURN_IF_ERROR(origin().Load(slot.place));
  slot.filled = true;
  residency_.Publish(wanted.layer_index, wanted.partition, slot.place.stored);
  ++moved_;
  return OkStatus();
}

Result<int> PartialTables::Rebalance(int moves_max) {
  CountReads();
  const auto heat_of = [&](const PartitionPlace& place) {
    return heat_[place.layer_index][place.partition];
  };
  std::vector<Slot*> idle;
  for (Slot& slot : slots_) idle.push_back(&slot);
  std::sort(idle.begin(), idle.end(), [&](const Slot* a, const Slot* b) {
    return std::pair(a->filled, a->filled ? heat_of(a->place) : 0) <
           std::pair(b->filled, b->filled ? heat_of(b->place) : 0);
  });
  std::vector<PartitionPlace> busy;
  for (const PartitionPlace& place : OwnedPartitions(plan())) {
    if (!IsResident(place.layer_index, place.partition)) busy.push_back(place);
  }
  std::stable_sort(busy.begin(), busy.end(),
                   [&](const auto& a, const auto& b) { return heat_of(a) > heat_of(b); });
  int moves = 0;
  for (size_t i = 0; i < std::min(idle.size(), busy.size()) && moves < moves_max; ++i) {
    Slot& slot = *idle[i];
    if (slot.filled && heat_of(busy[i]) < kBusier * heat_of(slot.place) + kReadsMin) break;
    RETURN_IF_ERROR(Replace(slot, busy[i]));
    ++moves;
  }
  return moves;
}

// Whether anything changed.
Result<bool> PartialTables::FillAndRebalance() {
  ASSIGN_OR_RETURN(const uint64_t filled, FillMemory(&stop_));
  if (filled > 0) {
    obs::LogInfo(fmt::format("memory became free model={} version={} partitions_loaded={}",
                             identity().model, identity().version, filled));
  }
  ASSIGN_OR_RETURN(const int moved, Rebalance(kMovesPerPeriod));
  return filled > 0 || moved > 0;
}

void PartialTables::KeepBalanced() {
  const Status filled = options_.serve_while_loading ? FillMemory(&stop_).status() : OkStatus();
  if (!filled.ok() && filled.code() != Code::kCancelled) {
    obs::LogError(fmt::format("loading ended model={} version={} why={}", identity().model,
                              identity().version, filled.message()));
  }
  std::unique_lock lock(mutex_);
  while (!stop_changed_.wait_for(lock, options_.balance_period, [&] { return stop_.load(); })) {
    lock.unlock();
    const Result<bool> changed = FillAndRebalance();
    Status done = changed.status();
    if (changed.ok() && *changed) done = SaveResident();
    if (!done.ok() && done.code() != Code::kCancelled) {
      obs::LogError(fmt::format("moving partitions why={}", done.message()));
    }
    lock.lock();
  }
}

std::optional<ServedTables::ColdFigures> PartialTables::cold_figures() const {
  ColdFigures figures;
  if (pinned_ != nullptr) figures.pinned_rows = pinned_->size();
  if (cache_ != nullptr) {
    figures.cache_hits = cache_->hits();
    figures.cache_misses = cache_->misses();
  }
  figures.pages_read = cold_.pages_read();
  figures.partitions_moved = moved_;
  return figures;
}

}  // namespace engram::memnode
