// The rows of a model folder as an import reads them: by pread into the caller's memory, so that a
// shard which shrinks or changes meanwhile is an error and not a crash, and memory stays bounded.
//
// Layouts: DeepSeek-V4.1 (fp8 rows and their ue8m0 scales, packed), the paper's (bf16), Qwen PLE
// (shards of rows, bf16 or fp8 without scales).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/checkpoint/model_tables.h"
#include "common/table/layout.h"

namespace engram::client {

class TableSource {
 public:
  virtual ~TableSource() = default;

  virtual const table::RowFormat& row_format() const = 0;
  virtual uint32_t layer_count() const = 0;
  virtual uint64_t rows(uint32_t layer_index) const = 0;
  // Rows [first, first + count) as on the wire, row after row. In range, CHECKed. Any thread.
  // FAILED_PRECONDITION names the shard that is shorter, newer or another file than at Open;
  // UNAVAILABLE: the disk could not read it.
  virtual Status ReadRows(uint32_t layer_index, uint64_t first, uint64_t count,
                          std::byte* out) const = 0;
  // Sizes and times of the shards in use: an import that is resumed must find the same.
  virtual std::string Fingerprint() const = 0;
  // FAILED_PRECONDITION names the first shard that changed since Open (size, time or file). To be
  // asked after the last row.
  virtual Status CheckUnchanged() const = 0;
};

// Opens the tables of a folder and compares them with the layout its config gives. NOT_FOUND,
// INVALID_ARGUMENT: name shard, tensor and what is wrong.
Result<std::unique_ptr<TableSource>> OpenTableSource(const std::string& model_dir,
                                                     const ModelTables& model);

}  // namespace engram::client
