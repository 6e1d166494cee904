// Where the rows of a checkpoint's tables lie: by tensor name, dtype and shape.
//
//   Engram:   [model.]layers.{id}.engram.embed.weight  BF16 [rows, dim], or F8_E4M3 [rows, dim]
//             with .embed.scale F8_E8M0 [rows, dim / 32]
//   Qwen PLE: model.language_model.layers.{id}.ple.ple_embedding.ngram_embedding.shard_{s}.weight,
//             BF16 or F8_E4M3 [rows, dim] without scales, one after the other
#pragma once

#include <cstdint>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/safetensors.h"
#include "common/table/layout.h"

namespace engram::client {

struct TablePart {
  uint64_t first_row = 0;
  uint64_t rows = 0;
  const io::TensorInfo* weight = nullptr;
  const io::TensorInfo* scale = nullptr;  // null: rows without scales
};

struct TableParts {
  int layer_id = 0;
  uint64_t rows = 0;
  table::RowFormat format;
  std::vector<TablePart> parts;  // ascending, without gaps

  uint64_t weight_bytes() const;  // of one row
  uint64_t scale_bytes() const { return format.row_bytes() - weight_bytes(); }
  const TablePart& PartOf(uint64_t row) const;
};

// One table for each layer, all in one format. `head_dim` 0: whatever the first tensor has.
// NOT_FOUND names the tensor sought; INVALID_ARGUMENT names the tensor with its dtype or shape and
// what was expected. `checkpoint` outlives the result.
Result<std::vector<TableParts>> FindTableParts(const io::Checkpoint& checkpoint,
                                               const std::vector<int>& layer_ids, int head_dim);

// INVALID_ARGUMENT names a tensor of an Engram layer that `layer_ids`, as the config has them,
// lacks.
Status CheckLayersListed(const io::Checkpoint& checkpoint, const std::vector<int>& layer_ids);

}  // namespace engram::client
