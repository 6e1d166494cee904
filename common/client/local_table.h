// LocalTable: the in-process RowSource, over the Engram tables of a checkpoint. Rows are the same
// bytes a memory node sends.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "common/checkpoint/checkpoint_tables.h"
#include "common/client/lookup/row_set.h"
#include "common/client/row_source.h"

namespace engram::client {

class LocalTable : public RowSource {
 public:
  // Errors as CheckpointTables::Open and CheckLayout. `checkpoint` outlives this.
  static Result<std::unique_ptr<LocalTable>> Open(const io::Checkpoint* checkpoint,
                                                  const table::TableLayout& layout,
                                                  table::TableIdentity identity);

  const table::TableIdentity& identity() const override { return identity_; }
  // Gathers before it returns. INVALID_ARGUMENT or OUT_OF_RANGE as LookupClient; DATA_LOSS names a
  // shard that was cut short or written to since the checkpoint was opened.
  Result<Ticket> Submit(std::span<const LayerLookup> layers, const SubmitOptions& options) override;
  SourceStats stats() const override;

 private:
  LocalTable(CheckpointTables tables, table::TableLayout layout, table::TableIdentity identity)
      : tables_(std::move(tables)), layout_(std::move(layout)), identity_(std::move(identity)) {}

  Status CheckRows(const LayerLookup& lookup) const;

  const CheckpointTables tables_;
  const table::TableLayout layout_;
  const table::TableIdentity identity_;
  std::mutex distinct_mutex_;
  RowSet distinct_;  // under distinct_mutex_; only for the count
  std::atomic<uint64_t> rows_asked_ = 0;
  std::atomic<uint64_t> rows_distinct_ = 0;
};

}  // namespace engram::client
