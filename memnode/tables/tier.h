// A table set of which not every row is in memory: it is still being loaded, or the node's memory
// is smaller than its share.
//
// A row is looked for in this order: partitions in memory, rows pinned by a hot set, the cache of
// rows, the store. Each gives the same bytes. Which partitions are in memory follows the reads
// counted: Rebalance puts a busy one in the place of an idle one. (Hashing spreads hot n-grams over
// all partitions alike, so that with one model's usual traffic the pinned rows and the cache do
// most of the work; partitions differ where layers or deltas are read unevenly.) Memory that
// becomes free later, because another version is gone, is taken too.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "memnode/store/table_plan.h"
#include "memnode/store/table_reader.h"
#include "memnode/tables/cold_reader.h"
#include "memnode/tables/memory_budget.h"
#include "memnode/tables/partition_loader.h"
#include "memnode/tables/pinned_rows.h"
#include "memnode/tables/residency.h"
#include "memnode/tables/row_cache.h"

namespace engram::memnode {

struct TierOptions {
  uint64_t cache_bytes = 64 << 20;
  std::vector<RowId> pinned;      // rows to keep in memory, the most wanted first
  uint64_t pinned_bytes_max = 0;  // for them
  // What partitions may take; null: they take none. Outlives the tier.
  MemoryBudget::Share* memory = nullptr;
  ColdReader::Options cold;
  PageBacking pages = PageBacking::kHugeTlb;
  PartitionLoadOptions load;
};

class Tier {
 public:
  // Nothing is resident yet. `reader` and `plan` outlive it. Errors: reading
  // the pinned rows, memory.
  static Result<std::unique_ptr<Tier>> Open(const TableReader& reader, const TablePlan& plan,
                                            const TierOptions& options);
  ~Tier();

  Residency& residency() { return residency_; }

  // Addresses of stored rows in memory, null for the others; good while `Residency::Use` is held.
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const;
  // Whether ReadCold may take a batch now.
  bool HasRoom() const { return cold_.has_room(); }
  // Rows that have no address, from the cache or the store.
  bool ReadCold(const std::shared_ptr<ColdBatch>& batch) { return cold_.Submit(batch); }

  // Whether the cache has a copy of the row that does not match its check; the second drops it.
  bool HasDamagedCopy(uint32_t layer_index, uint64_t row) const {
    return cache_ != nullptr && cache_->IsDamaged(layer_index, row);
  }
  bool ForgetDamagedCopy(uint32_t layer_index, uint64_t row) const {
    return HasDamagedCopy(layer_index, row) && cache_->Forget(layer_index, row);
  }

  // Takes memory for as many of the partitions that have none as there is room for, and loads them,
  // verified: the busiest first, then those that were resident when the node last ran, then others
  // in order. Returns how many. The same thread as Rebalance.
  Result<uint64_t> FillMemory(RowStore& store);
  // Moves at most `moves_max` partitions; returns how many. One thread.
  Result<int> Rebalance(int moves_max);
  // What is resident, for the next start.
  Status SaveResident(RowStore& store);
  // Fills and rebalances from now on in the background, every `period`.
  Status KeepBalanced(RowStore& store, Nanos period);

  // Of the cache, the pinned rows and partitions.
  uint64_t memory_bytes() const;

  struct Figures {
    uint64_t resident_partitions = 0, owned_partitions = 0;
    uint64_t pinned_rows = 0;
    uint64_t cache_hits = 0, cache_misses = 0;
    uint64_t pages_read = 0;
    uint64_t partitions_moved = 0;
  };
  Figures figures() const;

 private:
  struct Slot {
    PartitionPlace place;
    bool filled = false;
  };

  Tier(const TableReader& reader, const TablePlan& plan, const TierOptions& options,
       std::unique_ptr<RowCache> cache);
  Status PinRows();
  std::string ResidentKey() const;
  std::vector<PartitionPlace> PreferredOrder(RowStore& store) const;
  void CountReads();
  Status Replace(Slot& slot, const PartitionPlace& wanted);
  Result<bool> FillAndRebalance(RowStore& store);

  const TableReader& reader_;
  const TablePlan& plan_;
  const TierOptions options_;
  Residency residency_;
  std::unique_ptr<RowCache> cache_;     // null: no cache
  std::unique_ptr<PinnedRows> pinned_;  // null: none
  ColdReader cold_;
  std::vector<AlignedBuffer> memory_;
  std::atomic<uint64_t> memory_bytes_ = 0;  // of memory_
  std::vector<Slot> slots_;
  std::vector<std::vector<double>> heat_;  // by layer and partition: reads, halved each time
  std::atomic<uint64_t> moved_ = 0;

  std::mutex mutex_;
  std::condition_variable stop_changed_;
  bool stop_ = false;  // guarded by mutex_
  std::thread balancer_;
};

}  // namespace engram::memnode
