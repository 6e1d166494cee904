// Keeps a node's rows sound, in its store and in memory: reads both through in the background,
// looks at once at what is reported, repairs what it can, and says what is damaged now.
//
// Any thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/obs/metrics.h"
#include "memnode/store/row_store.h"
#include "memnode/tables/loaded_tables.h"
#include "memnode/tables/row_origin.h"
#include "memnode/upkeep/memory_scrubber.h"
#include "memnode/upkeep/repair.h"
#include "memnode/upkeep/scrubber.h"

namespace engram::memnode {

class Upkeep final : public StoreKeeper {
 public:
  struct Options {
    ScrubberOptions store;
    MemoryScrubberOptions memory;
  };

  // A null store: of procedural tables, which have none, and then what follows about damage of the
  // store is not for them. All outlive it. Until it is started reports wait; repairs are made.
  Upkeep(RowStore* store, const LoadedTables& loaded, obs::Metrics& metrics,
         const Options& options);
  // Begins to read in the background, until it is destroyed, which takes the reading of a partition
  // at most. RESOURCE_EXHAUSTED: no thread.
  Status Start();

  void ReportDamage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                    const Status& why) override;
  Status RepairPartition(const std::string& model, const std::string& version, uint32_t layer_index,
                         uint32_t partition, const std::atomic<bool>& given_up) override;
  // Has a page looked at and repaired. Never waits for the disk.
  void CheckPage(TableSetId table_set, uint32_t layer_index, uint64_t page);
  // Has a row of tables in memory looked at, which a client found damaged. Never waits.
  void CheckRow(const std::weak_ptr<const ServedTables>& tables, uint32_t layer_index,
                uint64_t row);
  // The store's table sets have changed. Never waits for the disk.
  void Refresh() { store_->scrubber.Refresh(); }
  // For dropping table sets (Repairer::Pause).
  Repairer& repairer() { return store_->repairer; }

  // Damage of the store that could not be repaired, and imports that have not ended, as last seen.
  std::vector<Damage> damage() const { return store_->scrubber.Bad(); }
  std::vector<IncompleteImport> incomplete() const { return store_->scrubber.Incomplete(); }
  // Partitions in memory whose damaged rows could not be written again.
  size_t unmended() const { return memory_scrubber_.unmended(); }
  // Why most lookups of `lookup_rows` rows would fail now; empty: they would not.
  std::string Unreadable(double lookup_rows) const;

 private:
  const LoadedTables& loaded_;
  struct OfStore {
    OfStore(RowStore& store, const LoadedTables& loaded, obs::Metrics& metrics,
            const ScrubberOptions& options)
        : repairer(store, loaded), scrubber(store, repairer, metrics, options) {}
    Repairer repairer;
    Scrubber scrubber;
  };

  const std::unique_ptr<OfStore> store_;
  MemoryScrubber memory_scrubber_;
};

}  // namespace engram::memnode
