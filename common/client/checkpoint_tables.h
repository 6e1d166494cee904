// The Engram tables inside a safetensors checkpoint: found by name, checked against the config,
// read as wire rows. Used by the in-process source (local_table.h) and by the memory node's loader.
//
// Names: model.layers.{id}.engram.embed.weight (BF16, or F8_E4M3 with .embed.scale), or the same
// without "model.".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/io/safetensors.h"
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
  uint64_t rows(uint32_t layer_index) const { return tables_[layer_index].rows; }

  // Rows [first_row, first_row + count) as on the wire: weight bytes, then (fp8) scale bytes, row
  // after row; count * row_format().row_bytes() bytes at `out`. In range, CHECKed. Any thread.
  void CopyRows(uint32_t layer_index, uint64_t first_row, uint64_t count, std::byte* out) const;

 private:
  struct Table {
    int layer_id = 0;
    uint64_t rows = 0;
    const std::byte* weight = nullptr;  // [rows, weight_bytes]
    const std::byte* scale = nullptr;   // [rows, scale_bytes]; null for bf16
  };
  table::RowFormat row_format_;
  size_t weight_bytes_ = 0;  // of one row
  size_t scale_bytes_ = 0;
  std::vector<Table> tables_;
};

// The encoding the rows have: from the checkpoint's tables where it has them, else what the
// config's variant implies (v41: fp8 with scales; paper: bf16). `checkpoint` may be null.
Result<table::RowEncoding> DetectEncoding(const io::Checkpoint* checkpoint,
                                          const table::EngramConfig& config);

}  // namespace engram::client
