#include "memnode/tables/tier.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "common/table/row_check.h"

namespace engram::memnode {
namespace {

constexpr int kMovesPerPeriod = 4;  // 64 MiB of reads: the disk stays free for cold rows
// A partition takes the place of another one only when it is clearly busier.
constexpr double kBusier = 1.25;
constexpr double kReadsMin = 256;

}  // namespace

Tier::Tier(const TableReader& reader, const TablePlan& plan, const TierOptions& options,
           std::unique_ptr<RowCache> cache)
    : reader_(reader),
      plan_(plan),
      options_(options),
      residency_(plan),
      cache_(std::move(cache)),
      cold_(reader, cache_.get(), options.cold) {
  for (const LayerPlan& layer : plan.layers) heat_.emplace_back(layer.cut.partition_count, 0.0);
}

Result<std::unique_ptr<Tier>> Tier::Open(const TableReader& reader, const TablePlan& plan,
                                         const TierOptions& options) {
  std::unique_ptr<RowCache> cache;
  if (options.cache_bytes > 0) {
    ASSIGN_OR_RETURN(
        cache, RowCache::Create(options.cache_bytes, table::StoredRowBytes(reader.row_bytes())));
  }
  std::unique_ptr<Tier> tier(new Tier(reader, plan, options, std::move(cache)));
  RETURN_IF_ERROR(tier->cold_.started());
  if (!options.pinned.empty()) RETURN_IF_ERROR(tier->PinRows());
  return tier;
}

// As many of the wanted rows as there is room for, of this member's share.
Status Tier::PinRows() {
  const uint64_t room = PinnedRows::RowsThatFit(options_.pinned_bytes_max,
                                                table::StoredRowBytes(reader_.row_bytes()));
  std::set<RowId> taken;
  for (const RowId& id : options_.pinned) {
    if (taken.size() >= room) break;
    if (id.layer_index >= plan_.layers.size()) continue;
    const LayerPlan& layer = plan_.layers[id.layer_index];
    if (id.row >= layer.cut.total_rows) continue;
    const uint32_t partition = layer.cut.PartitionOf(id.row);
    if (!std::binary_search(layer.owned.begin(), layer.owned.end(), partition)) continue;
    taken.insert(id);
  }
  ASSIGN_OR_RETURN(pinned_, PinnedRows::Read(reader_, {taken.begin(), taken.end()}));
  return OkStatus();
}

uint64_t Tier::memory_bytes() const {
  return options_.cache_bytes + (pinned_ == nullptr ? 0 : pinned_->memory_bytes()) + memory_bytes_;
}

Tier::~Tier() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stop_changed_.notify_all();
  if (balancer_.joinable()) balancer_.join();
}

Status Tier::Find(uint32_t layer_index, std::span<const uint64_t> rows,
                  std::span<const std::byte*> addresses) const {
  RETURN_IF_ERROR(residency_.Find(layer_index, rows, addresses));
  if (pinned_ == nullptr) return OkStatus();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (addresses[i] == nullptr) addresses[i] = pinned_->Find(layer_index, rows[i]);
  }
  return OkStatus();
}

std::string Tier::ResidentKey() const {
  const table::TableIdentity& identity = reader_.manifest().identity;
  return fmt::format("resident/{:016x}", TableSetIdOf(identity.model, identity.version));
}

// Those that were resident last time first: "layer:partition" separated by spaces. A hint: what
// does not fit the plan any more is passed over.
std::vector<PartitionPlace> Tier::PreferredOrder(RowStore& store) const {
  std::vector<PartitionPlace> order;
  std::set<std::pair<uint32_t, uint32_t>> taken;
  const auto records = store.ReadRecords(ResidentKey());
  if (records.ok() && !records->empty()) {
    std::istringstream text(records->begin()->second);
    uint32_t layer = 0, partition = 0;
    char colon = 0;
    while (text >> layer >> colon >> partition) {
      if (layer >= plan_.layers.size()) continue;
      const std::vector<uint32_t>& owned = plan_.layers[layer].owned;
      if (!std::binary_search(owned.begin(), owned.end(), partition)) continue;
      if (taken.emplace(layer, partition).second) order.push_back({layer, partition, nullptr});
    }
  }
  for (const PartitionPlace& place : OwnedPartitions(plan_)) {
    if (taken.emplace(place.layer_index, place.partition).second) order.push_back(place);
  }
  return order;
}

Status Tier::SaveResident(RowStore& store) {
  std::string text;
  for (const Slot& slot : slots_) {
    if (!slot.filled) continue;
    text += fmt::format("{}:{} ", slot.place.layer_index, slot.place.partition);
  }
  const RecordChange record = {ResidentKey(), std::move(text)};
  return store.WriteProgress({&record, 1});
}

Result<uint64_t> Tier::FillMemory(RowStore& store) {
  if (options_.memory == nullptr) return uint64_t{0};
  const table::ArenaMap map = plan_.Map();
  std::vector<PartitionPlace> order = PreferredOrder(store);
  uint64_t slot_bytes = 1;
  for (const PartitionPlace& place : order) {
    slot_bytes = std::max(slot_bytes, map.PartitionBytes(place.layer_index, place.partition));
  }
  // Empty slots are for Rebalance to fill.
  const uint64_t wanted = order.size() - std::min(order.size(), slots_.size());
  const uint64_t taken = options_.memory->Take(wanted, slot_bytes);
  if (taken == 0) return uint64_t{0};
  auto memory = AlignedBuffer::Allocate(taken * slot_bytes, options_.pages);
  if (!memory.ok()) {
    options_.memory->GiveBack(taken * slot_bytes);
    return memory.status().WithContext("memory for this node's rows");
  }
  std::erase_if(order, [&](const PartitionPlace& place) {
    return residency_.resident(place.layer_index, place.partition);
  });
  std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return heat_[a.layer_index][a.partition] > heat_[b.layer_index][b.partition];
  });
  order.resize(taken);
  for (size_t i = 0; i < taken; ++i) order[i].stored = memory->data() + i * slot_bytes;
  memory_.push_back(std::move(*memory));
  memory_bytes_ += taken * slot_bytes;
  PartitionLoadOptions load = options_.load;
  load.on_loaded = [&](const PartitionPlace& place) {
    residency_.Publish(place.layer_index, place.partition, place.stored);
    if (options_.load.on_loaded) options_.load.on_loaded(place);
  };
  const Status loaded = LoadPartitions(reader_, order, load);
  for (const PartitionPlace& place : order) {
    slots_.push_back({place, residency_.resident(place.layer_index, place.partition)});
  }
  RETURN_IF_ERROR(loaded);
  return taken;
}

void Tier::CountReads() {
  for (uint32_t i = 0; i < plan_.layers.size(); ++i) {
    for (const uint32_t partition : plan_.layers[i].owned) {
      double& heat = heat_[i][partition];
      heat = heat / 2 + static_cast<double>(residency_.TakeReads(i, partition));
    }
  }
}

// The slot's partition goes, the wanted one comes; on an error the slot stays empty.
Status Tier::Replace(Slot& slot, const PartitionPlace& wanted) {
  if (slot.filled) residency_.Withdraw(slot.place.layer_index, slot.place.partition);
  slot.filled = false;
  slot.place.layer_index = wanted.layer_index;
  slot.place.partition = wanted.partition;
  PartitionLoadOptions load = options_.load;
  load.threads = 1;
  load.on_loaded = nullptr;
  RETURN_IF_ERROR(LoadPartitions(reader_, {slot.place}, load));
  slot.filled = true;
  residency_.Publish(wanted.layer_index, wanted.partition, slot.place.stored);
  ++moved_;
  return OkStatus();
}

Result<int> Tier::Rebalance(int moves_max) {
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
  for (const PartitionPlace& place : OwnedPartitions(plan_)) {
    if (!residency_.resident(place.layer_index, place.partition)) busy.push_back(place);
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
Result<bool> Tier::FillAndRebalance(RowStore& store) {
  ASSIGN_OR_RETURN(const uint64_t filled, FillMemory(store));
  if (filled > 0) {
    const table::TableIdentity& identity = reader_.manifest().identity;
    obs::LogInfo(fmt::format("memory became free model={} version={} partitions_loaded={}",
                             identity.model, identity.version, filled));
  }
  ASSIGN_OR_RETURN(const int moved, Rebalance(kMovesPerPeriod));
  return filled > 0 || moved > 0;
}

Status Tier::KeepBalanced(RowStore& store, Nanos period) {
  const auto balance = [this, &store, period] {
    std::unique_lock lock(mutex_);
    while (!stop_changed_.wait_for(lock, period, [&] { return stop_; })) {
      lock.unlock();
      const Result<bool> changed = FillAndRebalance(store);
      Status done = changed.status();
      if (changed.ok() && *changed) done = SaveResident(store);
      if (!done.ok() && done.code() != Code::kCancelled) {
        obs::LogError(fmt::format("moving partitions why={}", done.message()));
      }
      lock.lock();
    }
  };
  ASSIGN_OR_RETURN(balancer_, StartThread("balance", balance));
  return OkStatus();
}

Tier::Figures Tier::figures() const {
  Figures figures;
  for (const PartitionPlace& place : OwnedPartitions(plan_)) {
    ++figures.owned_partitions;
    if (residency_.resident(place.layer_index, place.partition)) ++figures.resident_partitions;
  }
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
