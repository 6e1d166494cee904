// Tables of which not every row is in memory. A row is looked for in this order: partitions in
// memory, rows pinned by a hot set, the cache of rows, the store. Each gives the same bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "memnode/tables/cold_reader.h"
#include "memnode/tables/pinned_rows.h"
#include "memnode/tables/residency.h"
#include "memnode/tables/row_cache.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

struct ColdOptions {
  uint64_t cache_bytes = 64 << 20;
  std::vector<RowId> pinned;  // rows to keep in memory, the most wanted first
  ColdReader::Options reader;
  Nanos balance_period = std::chrono::seconds(10);  // partial_tables.h
};

class ColdTables : public ServedTables {
 public:
  std::shared_lock<std::shared_mutex> Use() const override { return residency_.Use(); }
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const override;
  ColdReader* cold() const override { return &cold_; }
  uint64_t memory_bytes() const override;
  bool IsResident(uint32_t layer_index, uint32_t partition) const override {
    return residency_.resident(layer_index, partition);
  }
  std::optional<ColdFigures> cold_figures() const override;

 protected:
  // No partition is resident yet. `reader` is the origin's. A null cache: none.
  ColdTables(TableParts parts, const TableReader& reader, std::unique_ptr<RowCache> cache,
             const ColdOptions& options, obs::Metrics& metrics);
  // Null for options.cache_bytes = 0.
  static Result<std::unique_ptr<RowCache>> MakeCache(const ColdOptions& options,
                                                     const TablePlan& plan);
  // As many of the wanted rows of this member's share as fit. Errors: reading them, memory.
  Status Pin(const std::vector<RowId>& wanted, uint64_t bytes_max);
  Status started() const { return cold_.started(); }
  Residency& residency() { return residency_; }

 private:
  bool HasDamagedCopy(uint32_t layer_index, uint64_t row) const override {
    return cache_ != nullptr && cache_->IsDamaged(layer_index, row);
  }
  bool ForgetDamagedCopy(uint32_t layer_index, uint64_t row) const override {
    return HasDamagedCopy(layer_index, row) && cache_->Forget(layer_index, row);
  }

  const TableReader& reader_;
  const uint64_t cache_bytes_;
  Residency residency_;
  const std::unique_ptr<RowCache> cache_;
  std::unique_ptr<PinnedRows> pinned_;  // null: none
  mutable ColdReader cold_;
};

}  // namespace engram::memnode
