#include "memnode/tables/partial_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "common/base/threads.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

constexpr int kMovesPerPeriod = 4;  // 64 MiB of reads: the disk stays free for cold rows
// A partition takes the place of another one only when it is clearly busier.
constexpr double kBusier = 1.25;
constexpr double kReadsMin = 256;

}  // namespace

PartialTables::PartialTables(TableParts parts, const StoredRows& rows, RowStore& store,
                             std::unique_ptr<RowCache> cache, const PartialOptions& options,
                             obs::Metrics& metrics)
    : ColdTables(std::move(parts), rows.reader(), std::move(cache), options.cold, metrics),
      store_(store),
      options_(options) {
  for (const LayerPlan& layer : plan().layers) heat_.emplace_back(layer.cut.partition_count, 0.0);
}

Result<std::shared_ptr<ServedTables>> PartialTables::Open(TableParts parts, const StoredRows& rows,
                                                          RowStore& store, PartialOptions options,
                                                          obs::Metrics& metrics) {
  options.cold.cache_bytes = parts.share.Take(options.cold.cache_bytes, 1);
  ASSIGN_OR_RETURN(auto cache, MakeCache(options.cold, parts.plan));
  std::shared_ptr<PartialTables> tables(
      new PartialTables(std::move(parts), rows, store, std::move(cache), options, metrics));
  RETURN_IF_ERROR(tables->started());
  if (!options.cold.pinned.empty()) {
    const uint64_t room = tables->share().Take(tables->share().left() / 2, 1);
    RETURN_IF_ERROR(tables->Pin(options.cold.pinned, room));
    const uint64_t in_use = tables->memory_bytes() - options.cold.cache_bytes;
    tables->share().GiveBack(room - std::min(room, in_use));
  }
  if (!options.serve_while_loading) RETURN_IF_ERROR(tables->FillMemory(options.cancel).status());
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  ASSIGN_OR_RETURN(tables->balancer_, StartThread("balance", [raw = tables.get()] {
                     raw->KeepBalanced(raw->options_.serve_while_loading);
                   }));
  return std::shared_ptr<ServedTables>(std::move(tables));
}

PartialTables::~PartialTables() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stop_changed_.notify_all();
  if (balancer_.joinable()) balancer_.join();
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
  PartitionLoadOptions load;
  load.threads = options_.load_threads;
  load.cancel = cancel;
  load.on_loaded = [&](const PartitionPlace& place) {
    residency().Publish(place.layer_index, place.partition, place.stored);
  };
  const Status loaded = LoadPartitions(origin(), order, load);
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
      heat = heat / 2 + static_cast<double>(residency().TakeReads(i, partition));
    }
  }
}

// The slot's partition goes, the wanted one comes; on an error the slot stays empty.
Status PartialTables::Replace(Slot& slot, const PartitionPlace& wanted) {
  if (slot.filled) residency().Withdraw(slot.place.layer_index, slot.place.partition);
  slot.filled = false;
  slot.place.layer_index = wanted.layer_index;
  slot.place.partition = wanted.partition;
  RETURN_IF_ERROR(origin().Load(slot.place));
  slot.filled = true;
  residency().Publish(wanted.layer_index, wanted.partition, slot.place.stored);
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

void PartialTables::KeepBalanced(bool fill_first) {
  const Status filled = fill_first ? FillMemory(&stop_).status() : OkStatus();
  if (!filled.ok() && filled.code() != Code::kCancelled) {
    obs::LogError(fmt::format("loading ended model={} version={} why={}", identity().model,
                              identity().version, filled.message()));
  }
  std::unique_lock lock(mutex_);
  while (
      !stop_changed_.wait_for(lock, options_.cold.balance_period, [&] { return stop_.load(); })) {
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
  std::optional<ColdFigures> figures = ColdTables::cold_figures();
  figures->partitions_moved = moved_;
  return figures;
}

}  // namespace engram::memnode
