// Where rows come from that are not in memory, or are damaged there: a store, or a rule
// (procedural_tables.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/base/status.h"
#include "memnode/store/table_reader.h"

namespace engram::memnode {

struct PartitionPlace {
  uint32_t layer_index = 0;
  uint32_t partition = 0;
  std::byte* stored = nullptr;  // RowCount(partition) stored rows
};

// Any thread.
class RowOrigin {
 public:
  virtual ~RowOrigin() = default;
  // Writes a partition's rows, verified, each sealed with its check, to `place.stored`.
  virtual Status Load(const PartitionPlace& place) const = 0;
  // One row without its check; may block for a disk read.
  virtual Status ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const = 0;
  // Ends a Load that waits for repairs with CANCELLED, now and from now on: the thread that
  // destroys tables may hold up repairs until they are gone.
  void GiveUp() const { given_up_.store(true); }

 protected:
  const std::atomic<bool>& given_up() const { return given_up_; }

 private:
  mutable std::atomic<bool> given_up_ = false;
};

// Keeps a store sound. Any thread.
class StoreKeeper {
 public:
  virtual ~StoreKeeper() = default;
  // A page of this table set was read and is damaged. Never waits for the disk.
  virtual void ReportDamage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                            const Status& why) = 0;
  // Rebuilds a damaged partition; OK when it may be read again. CANCELLED: `given_up` became true
  // while other repairs, or a drop, were waited for.
  virtual Status RepairPartition(const std::string& model, const std::string& version,
                                 uint32_t layer_index, uint32_t partition,
                                 const std::atomic<bool>& given_up) = 0;
};

class StoredRows final : public RowOrigin {
 public:
  // `keeper` (may be null: damage is an error) hears of damaged pages, and repairs a partition that
  // is found damaged while it is loaded. It and the store outlive this. Errors:
  // TableReader::Open's.
  static Result<std::unique_ptr<StoredRows>> Open(RowStore& store, Manifest manifest,
                                                  StoreKeeper* keeper = nullptr);

  const TableReader& reader() const { return *reader_; }
  Status Load(const PartitionPlace& place) const override;
  Status ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const override;

 private:
  StoredRows(std::unique_ptr<const TableReader> reader, StoreKeeper* keeper)
      : reader_(std::move(reader)), keeper_(keeper) {}
  Status LoadOnce(const PartitionPlace& place) const;

  const std::unique_ptr<const TableReader> reader_;
  StoreKeeper* const keeper_;
};

}  // namespace engram::memnode
