// One version of a model as a node serves it. Sessions share it: a version that is no longer
// current lives until its last reader has left.
//
// Immutable to its readers; any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "common/net/control/control.h"
#include "common/net/control/fd_passing.h"
#include "common/obs/metrics.h"
#include "common/table/identity.h"
#include "common/table/row_check.h"
#include "memnode/store/table_plan.h"
#include "memnode/store/table_reader.h"
#include "memnode/tables/arena.h"
#include "memnode/tables/tier.h"

namespace engram::memnode {

struct OpenTablesOptions {
  table::ClusterMap map;
  std::string member;
  ArenaOptions arena;
  // For the rows; null: whatever the share needs. With less than that, the rest is read from the
  // store.
  std::shared_ptr<MemoryBudget> memory;
  uint64_t send_buffer_bytes = 0;  // what the node takes besides, when it is judged what fits
  bool serve_while_loading = false;
  TierOptions tier;
  Nanos balance_period = std::chrono::seconds(10);
  TableReader::OnDamage on_damage;
  int load_threads = 0;  // 0: two a CPU
  // Repairs a damaged partition in the store while loading; null: damage is an error.
  std::function<Status(uint32_t layer_index, uint32_t partition)> repair;
  // Ends Open with CANCELLED, within a partition or two; not what goes on after it. May be null.
  const std::atomic<bool>* cancel = nullptr;
};

class ServedTables {
 public:
  // Loads a complete table set of the store, which outlives it. Returns when the rows that have
  // room are in memory and verified, or, serving while loading, at once. Errors: TableReader's,
  // Arena's; FAILED_PRECONDITION when the store lacks partitions that this member owns;
  // RESOURCE_EXHAUSTED, with the sum, when this machine or cgroup lacks the memory.
  static Result<std::shared_ptr<ServedTables>> Open(RowStore& store, Manifest manifest,
                                                    const OpenTablesOptions& options,
                                                    obs::Metrics& metrics);
  // Every row is in `arena`, laid out by plan.Map().
  static Result<std::shared_ptr<ServedTables>> InMemory(table::TableIdentity identity,
                                                        TablePlan plan,
                                                        std::shared_ptr<const Arena> arena,
                                                        obs::Metrics& metrics);
  // Of such tables: what their rows are computed from, should a damaged one have to be made again.
  void SetRule(table::RowFormat format, uint64_t seed) { rule_ = Rule{format, seed}; }
  // No row in memory: each is computed when it is asked for (common/table/procedural.h).
  static Result<std::shared_ptr<ServedTables>> Computed(table::TableIdentity identity,
                                                        TablePlan plan, table::RowFormat format,
                                                        uint64_t seed, obs::Metrics& metrics);
  ~ServedTables();

  const table::TableIdentity& identity() const { return identity_; }
  const TablePlan& plan() const { return plan_; }
  uint32_t layer_count() const { return static_cast<uint32_t>(plan_.layers.size()); }
  uint32_t row_bytes() const { return plan_.row_bytes; }
  uint32_t stored_row_bytes() const { return table::StoredRowBytes(plan_.row_bytes); }

  // Every row is in memory; stays true once it is.
  bool complete() const { return complete_.load(std::memory_order_acquire); }
  // The memory itself, null unless complete.
  const Arena* arena() const { return complete() ? arena_.get() : nullptr; }
  Tier* tier() const { return tier_.get(); }
  bool computed() const { return computed_; }
  // Of computed tables: one stored row.
  void ComputeRow(uint32_t layer_index, uint64_t row, std::span<std::byte> stored) const;

  // To be held while addresses are in use.
  std::shared_lock<std::shared_mutex> Use() const;
  // Where each stored row lies, null for a row that is not in memory. Errors as ArenaMap::Find.
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const;
  // One row without its check, wherever it is; may block for a disk read.
  Status ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const;

  // Whether a row's bytes in memory match its check; true when it is not in memory.
  bool RowIsSound(uint32_t layer_index, uint64_t row) const;
  // Appends the rows of an owned partition whose bytes in memory do not match their checks; false
  // when it is not in memory.
  bool FindDamagedRows(uint32_t layer_index, uint32_t partition,
                       std::vector<uint64_t>* damaged) const;
  // Reads a partition from where it was loaded, verifies it, and overwrites its rows that are
  // `damaged` or differ in memory: the only bytes that change under readers, which compare each
  // row's check. Returns how many were written. DATA_LOSS: no sound copy, or memory that does not
  // keep what is written. One thread.
  Result<uint64_t> Reload(uint32_t layer_index, uint32_t partition,
                          std::span<const uint64_t> damaged) const;

  // Rows [first, first + out.size() / row_bytes()) of a partition, from memory; false when it is
  // not there.
  bool CopyRows(uint32_t layer_index, uint64_t first, std::span<std::byte> out) const;

  const std::vector<net::KnownAnswer>& known_answers() const { return known_answers_; }
  // Where clients of this host get the memory from; null when it is not shared or not complete.
  net::FdServer* local() const { return complete() ? local_.get() : nullptr; }
  void CountRows(uint32_t layer_index, uint32_t count) const {
    rows_served_[layer_index]->Add(count);
  }
  uint64_t memory_bytes() const;
  // How much of this node's share is in memory as whole partitions; bytes of stored rows.
  struct Resident {
    uint64_t partitions = 0, partitions_owned = 0;
    uint64_t bytes = 0, bytes_owned = 0;
  };
  Resident resident() const;

 private:
  ServedTables(table::TableIdentity identity, TablePlan plan, obs::Metrics& metrics);
  Status LoadAll(const OpenTablesOptions& options, RowStore& store);
  Status LoadSome(const OpenTablesOptions& options, RowStore& store);
  PartitionLoadOptions LoadOptions(const OpenTablesOptions& options);
  Status LoadInBackground(std::vector<PartitionPlace> places, PartitionLoadOptions load);
  Status ChooseKnownAnswers();
  Result<std::vector<std::byte>> SoundPartition(uint32_t layer_index, uint32_t partition) const;
  uint64_t WriteOver(uint32_t layer_index, uint64_t first_row,
                     std::span<const std::byte> stored) const;
  Status ShareLocally();

  struct Rule {
    table::RowFormat format;
    uint64_t seed = 0;
  };

  const table::TableIdentity identity_;
  const TablePlan plan_;
  const table::ArenaMap map_;
  std::optional<Rule> rule_;                // of procedural tables
  bool computed_ = false;                   // by it, when asked for
  std::vector<obs::Counter*> rows_served_;  // by layer
  MemoryBudget::Share share_;               // given back after the memory itself
  std::shared_ptr<const Arena> arena_;      // null: less memory than the share
  std::unique_ptr<TableReader> reader_;     // null: no store
  std::unique_ptr<Tier> tier_;              // null: complete from the start
  std::unique_ptr<net::FdServer> local_;
  std::vector<net::KnownAnswer> known_answers_;
  std::function<Status(uint32_t layer_index, uint32_t partition)> repair_;  // of the store; null
  std::atomic<const std::atomic<bool>*> cancel_open_ = nullptr;
  std::atomic<bool> complete_ = false;
  std::atomic<bool> stop_ = false;
  std::thread loader_;  // serving while loading
};

}  // namespace engram::memnode
