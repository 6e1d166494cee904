// One version of a model as a node serves it. Sessions share it: a version that is no longer
// current lives until its last reader has left.
//
// Three kinds: every row in memory (arena_tables.h); memory for some of them, or not loaded yet,
// and the others read from the store (partial_tables.h); every row computed when it is asked for
// (procedural_tables.h). open_tables.h chooses.
//
// Immutable to its readers; any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/net/control/control.h"
#include "common/net/control/fd_passing.h"
#include "common/obs/metrics.h"
#include "common/table/identity.h"
#include "common/table/placement.h"
#include "common/table/row_check.h"
#include "memnode/store/table_plan.h"
#include "memnode/tables/cold_reader.h"
#include "memnode/tables/memory_budget.h"
#include "memnode/tables/row_origin.h"

namespace engram::memnode {

// What a kind of tables is made of.
struct ServedParts {
  table::TableIdentity identity;
  table::ClusterMap map;                              // by which clients read
  TablePlan plan;                                     // this member's, by the map
  std::unique_ptr<const RowOrigin> origin = nullptr;  // null: there is none
  MemoryBudget::Share share = {};                     // given back after the memory itself
};

class ServedTables {
 public:
  virtual ~ServedTables() = default;

  const table::TableIdentity& identity() const { return parts_.identity; }
  const table::ClusterMap& map() const { return parts_.map; }
  const TablePlan& plan() const { return parts_.plan; }
  uint32_t layer_count() const { return static_cast<uint32_t>(plan().layers.size()); }
  uint32_t row_bytes() const { return plan().row_bytes; }
  uint32_t stored_row_bytes() const { return table::StoredRowBytes(row_bytes()); }
  const std::vector<net::KnownAnswer>& known_answers() const { return known_answers_; }
  void CountRows(uint32_t layer_index, uint32_t count) const {
    rows_served_[layer_index]->Add(count);
  }

  // Every row is in memory; stays true once it is.
  bool complete() const { return complete_.load(std::memory_order_acquire); }

  // To be held while addresses are in use.
  virtual std::shared_lock<std::shared_mutex> Use() const { return {}; }
  // Where each stored row lies in memory, null for a row that is not there. Errors as
  // ArenaMap::Find.
  virtual Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
                      std::span<const std::byte*> addresses) const = 0;
  // As Find for rows to be sent: those that are computed are made in `scratch`. What is null is to
  // be read by cold().
  virtual Status Locate(uint32_t layer_index, std::span<const uint64_t> rows,
                        std::vector<std::byte>& /*scratch*/,
                        std::span<const std::byte*> addresses) const {
    return Find(layer_index, rows, addresses);
  }
  // Reads rows that Locate does not find; null when, from now on, it finds all.
  virtual ColdReader* cold() const { return nullptr; }
  // One row without its check, wherever it is; may block for a disk read.
  Status ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const;
  // Rows [first, first + out.size() / row_bytes()) of a partition, from memory; false when it is
  // not there.
  bool CopyRows(uint32_t layer_index, uint64_t first, std::span<std::byte> out) const;

  // Whether a row's bytes in memory match its check; true when it is not in memory.
  bool RowIsSound(uint32_t layer_index, uint64_t row) const;
  // Appends the rows of an owned partition whose bytes in memory do not match their checks; false
  // when it is not in memory.
  bool FindDamagedRows(uint32_t layer_index, uint32_t partition,
                       std::vector<uint64_t>* damaged) const;
  // Loads a partition again, verified, and overwrites its rows that are `damaged` or differ in
  // memory: the only bytes that change under readers, which compare each row's check. Returns how
  // many were written. DATA_LOSS: no sound copy, or memory that does not keep what is written. One
  // thread.
  Result<uint64_t> Reload(uint32_t layer_index, uint32_t partition,
                          std::span<const uint64_t> damaged) const;

  // All rows as one piece of memory that lies still, for one-sided readers; empty when it does not.
  virtual std::span<const std::byte> memory() const { return {}; }
  // Where clients of this host get that memory from; null when it is not shared or not complete.
  virtual net::FdServer* local() const { return nullptr; }

  virtual uint64_t memory_bytes() const = 0;
  virtual bool IsResident(uint32_t layer_index, uint32_t partition) const = 0;
  // How much of this node's share is in memory as whole partitions; bytes of stored rows.
  struct Resident {
    uint64_t partitions = 0, partitions_owned = 0;
    uint64_t bytes = 0, bytes_owned = 0;
  };
  Resident resident() const;
  // Of tables of which some rows are, or were, not in memory.
  struct ColdFigures {
    uint64_t pinned_rows = 0;
    uint64_t cache_hits = 0, cache_misses = 0;
    uint64_t pages_read = 0;
    uint64_t partitions_moved = 0;
  };
  virtual std::optional<ColdFigures> cold_figures() const { return std::nullopt; }

 protected:
  ServedTables(ServedParts parts, obs::Metrics& metrics);
  // Once rows can be read.
  Status ChooseKnownAnswers();
  void SetComplete() { complete_.store(true, std::memory_order_release); }
  const RowOrigin& origin() const { return *parts_.origin; }
  MemoryBudget::Share& share() { return parts_.share; }

 private:
  // Whether a copy of the row outside of Find's memory does not match its check; the second drops
  // it.
  virtual bool HasDamagedCopy(uint32_t /*layer_index*/, uint64_t /*row*/) const { return false; }
  virtual bool ForgetDamagedCopy(uint32_t /*layer_index*/, uint64_t /*row*/) const { return false; }

  ServedParts parts_;
  std::vector<obs::Counter*> rows_served_;  // by layer
  std::vector<net::KnownAnswer> known_answers_;
  std::atomic<bool> complete_ = false;
};

}  // namespace engram::memnode
