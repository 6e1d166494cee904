// The Engram tables inside a safetensors checkpoint: found by name, checked against the config,
// read as wire rows. Used by the in-process source (local_table.h) and by the memory node's loader.
//
// Names: table_parts.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/table_parts.h"
#include "common/table/engram_config.h"
#include "common/table/layout.h"

namespace engram::client {

class CheckpointTables {
 public:
  // Finds and checks one table for each of config.layer_ids, all in one encoding. NOT_FOUND names
  // the tensor sought; INVALID_ARGUMENT names the tensor with its dtype or shape and what was
  // expected. `checkpoint` outlives this.
  static Result<CheckpointTables> Open(const io::Checkpoint* checkpoint,
                                       const table::EngramConfig& config);

  // INVALID_ARGUMENT unless every layer has the layout's id, row count and row format.
  Status CheckLayout(const table::TableLayout& layout) const;

  table::RowEncoding encoding() const { return row_format_.encoding; }
  const table::RowFormat& row_format() const { return row_format_; }
  uint32_t layer_count() const { return static_cast<uint32_t>(tables_.size()); }
  int layer_id(uint32_t layer_index) const { return tables_[layer_index].layer_id; }
  uint64_t rows(uint32_t layer_index) const { return tables_[layer_index].rows; }

  // Rows [first_row, first_row + count) as on the wire: weight bytes, then (fp8) scale bytes, row
  // after row; count * row_format().row_bytes() bytes at `out`. In range, CHECKed. Any thread.
  void CopyRows(uint32_t layer_index, uint64_t first_row, uint64_t count, std::byte* out) const;
  // The rows, as on the wire, one after the other; each in range, CHECKed. Any thread.
  void GatherRows(uint32_t layer_index, std::span<const uint64_t> rows, std::byte* out) const;
  // DATA_LOSS names the shard of these tables that changed since the checkpoint was opened: rows
  // copied meanwhile may not be the tables'. About a microsecond a shard. Any thread.
  Status CheckUnchanged() const;

 private:
  const io::Checkpoint* checkpoint_ = nullptr;
  table::RowFormat row_format_;
  std::vector<TableParts> tables_;
  std::vector<const io::TensorInfo*> shards_;  // one tensor of each file the tables lie in
};

// The encoding the rows have: from the checkpoint's tables where it has them, else what the
// config's variant implies (v41: fp8 with scales; paper: bf16). `checkpoint` may be null.
Result<table::RowEncoding> DetectEncoding(const io::Checkpoint* checkpoint,
                                          const table::EngramConfig& config);

}  // namespace engram::client
