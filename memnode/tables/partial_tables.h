// Tables of which not every row is in memory: this node has less memory than they need, or they are
// served while their rows are loaded into an arena that has room for all. Once that is done,
// lookups go to the arena alone, and it is shared with clients of this host.
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
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "memnode/tables/arena.h"
#include "memnode/tables/cold_reader.h"
#include "memnode/tables/partition_loader.h"
#include "memnode/tables/pinned_rows.h"
#include "memnode/tables/residency.h"
#include "memnode/tables/row_cache.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

struct PartialOptions {
  uint64_t cache_bytes = 64 << 20;
  std::vector<RowId> pinned;  // rows to keep in memory, the most wanted first
  ColdReader::Options reader;
  Nanos balance_period = std::chrono::seconds(10);
  PageBacking pages = PageBacking::kHugeTlb;
  int load_threads = 0;  // as of LoadPartitions
  bool serve_while_loading = false;
  const std::atomic<bool>* cancel = nullptr;  // ends Open with CANCELLED
};

class PartialTables final : public ServedTables {
 public:
  // Takes from parts.share for the cache, for pinned rows at most half of what remains, and for
  // partitions, which are in memory and verified when it returns, unless it serves while loading.
  // `store` outlives it; parts.origin is `rows`. Errors: reading rows, memory.
  static Result<std::shared_ptr<ServedTables>> Open(ServedParts parts, const StoredRows& rows,
                                                    RowStore& store, PartialOptions options,
                                                    obs::Metrics& metrics);
  // Loads all rows into `arena`, of parts.plan, in the background.
  static Result<std::shared_ptr<ServedTables>> Load(ServedParts parts, const StoredRows& rows,
                                                    RowStore& store, Arena arena,
                                                    const PartialOptions& options,
                                                    obs::Metrics& metrics);
  ~PartialTables() override;

  std::shared_lock<std::shared_mutex> Use() const override {
    return complete() ? std::shared_lock<std::shared_mutex>() : residency_.Use();
  }
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const override;
  ColdReader* cold() const override { return complete() ? nullptr : &cold_; }
  std::span<const std::byte> memory() const override {
    return complete() ? arena_->bytes() : std::span<const std::byte>();
  }
  net::FdServer* local() const override { return complete() ? local_.get() : nullptr; }
  uint64_t memory_bytes() const override;
  bool IsResident(uint32_t layer_index, uint32_t partition) const override {
    return residency_.resident(layer_index, partition);
  }
  std::optional<ColdFigures> cold_figures() const override;

  // Moves at most `moves_max` partitions; returns how many. One thread.
  Result<int> Rebalance(int moves_max);
  // What is resident, for the next start. The same thread.
  Status SaveResident();

 private:
  struct Slot {
    PartitionPlace place;
    bool filled = false;
  };

  PartialTables(ServedParts parts, const StoredRows& rows, RowStore& store,
                std::unique_ptr<RowCache> cache, const PartialOptions& options,
                obs::Metrics& metrics);
  static Result<std::shared_ptr<PartialTables>> Make(ServedParts parts, const StoredRows& rows,
                                                     RowStore& store, const PartialOptions& options,
                                                     obs::Metrics& metrics);
  bool HasDamagedCopy(uint32_t layer_index, uint64_t row) const override {
    return cache_ != nullptr && cache_->IsDamaged(layer_index, row);
  }
  bool ForgetDamagedCopy(uint32_t layer_index, uint64_t row) const override {
    return HasDamagedCopy(layer_index, row) && cache_->Forget(layer_index, row);
  }
  Status Pin();
  Status LoadInto(const std::vector<PartitionPlace>& places, const std::atomic<bool>* cancel);
  void FillArena();
  Result<uint64_t> FillMemory(const std::atomic<bool>* cancel);
  std::string ResidentKey() const;
  std::vector<PartitionPlace> PreferredOrder() const;
  void CountReads();
  Status Replace(Slot& slot, const PartitionPlace& wanted);
  Result<bool> FillAndRebalance();
  void KeepBalanced();

  const TableReader& reader_;
  RowStore& store_;
  const PartialOptions options_;
  Residency residency_;
  const std::unique_ptr<RowCache> cache_;  // null: no cache
  std::unique_ptr<PinnedRows> pinned_;     // null: none
  mutable ColdReader cold_;
  std::optional<Arena> arena_;  // with room for all rows; none: memory_
  std::unique_ptr<net::FdServer> local_;
  std::vector<AlignedBuffer> memory_;
  std::atomic<uint64_t> memory_bytes_ = 0;  // of memory_
  std::vector<Slot> slots_;
  std::vector<std::vector<double>> heat_;  // by layer and partition: reads, halved each time
  std::atomic<uint64_t> moved_ = 0;

  std::mutex mutex_;
  std::condition_variable stop_changed_;
  std::atomic<bool> stop_ = false;  // set under mutex_
  std::thread filler_;
};

}  // namespace engram::memnode
