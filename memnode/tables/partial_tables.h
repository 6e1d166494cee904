// Tables for whose rows this node has less memory than they need.
//
// Which partitions are in memory follows the reads counted: Rebalance puts a busy one in the place
// of an idle one. (Hashing spreads hot n-grams over all partitions alike, so that with one model's
// usual traffic the pinned rows and the cache do most of the work; partitions differ where layers
// or deltas are read unevenly.) Memory that becomes free later, because another version is gone, is
// taken too.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "memnode/tables/cold_tables.h"
#include "memnode/tables/partition_loader.h"

namespace engram::memnode {

struct PartialOptions {
  ColdOptions cold;
  PageBacking pages = PageBacking::kHugeTlb;
  int load_threads = 0;  // as of LoadPartitions
  bool serve_while_loading = false;
  const std::atomic<bool>* cancel = nullptr;  // ends Open with CANCELLED
};

class PartialTables final : public ColdTables {
 public:
  // Takes from parts.share for the cache, for pinned rows at most half of what remains, and for
  // partitions, which are in memory and verified when it returns, unless it serves while loading.
  // `store` outlives it; parts.origin is `rows`. Errors: reading rows, memory.
  static Result<std::shared_ptr<ServedTables>> Open(TableParts parts, const StoredRows& rows,
                                                    RowStore& store, PartialOptions options,
                                                    obs::Metrics& metrics);
  ~PartialTables() override;

  uint64_t memory_bytes() const override { return ColdTables::memory_bytes() + memory_bytes_; }
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

  PartialTables(TableParts parts, const StoredRows& rows, RowStore& store,
                std::unique_ptr<RowCache> cache, const PartialOptions& options,
                obs::Metrics& metrics);
  Result<uint64_t> FillMemory(const std::atomic<bool>* cancel);
  std::string ResidentKey() const;
  std::vector<PartitionPlace> PreferredOrder() const;
  void CountReads();
  Status Replace(Slot& slot, const PartitionPlace& wanted);
  Result<bool> FillAndRebalance();
  void KeepBalanced(bool fill_first);

  RowStore& store_;
  const PartialOptions options_;
  std::vector<AlignedBuffer> memory_;
  std::atomic<uint64_t> memory_bytes_ = 0;  // of memory_
  std::vector<Slot> slots_;
  std::vector<std::vector<double>> heat_;  // by layer and partition: reads, halved each time
  std::atomic<uint64_t> moved_ = 0;

  std::mutex mutex_;
  std::condition_variable stop_changed_;
  std::atomic<bool> stop_ = false;  // set under mutex_
  std::thread balancer_;
};

}  // namespace engram::memnode
