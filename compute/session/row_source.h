// Where this engine's rows come from, as the configuration says: memory nodes, or the checkpoint
// itself.
#pragma once

#include <memory>

#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/safetensors.h"
#include "common/client/row_source.h"
#include "compute/memory/tables_info.h"
#include "compute/session/config.h"

namespace engram::compute {

struct OpenedRows {
  std::unique_ptr<client::RowSource> source;
  TablesInfo tables;
};
// `checkpoint` and `tables` must outlive the source. FAILED_PRECONDITION when the nodes' tables are
// not this folder's: by its rows, or by the digest it insists on. Where neither can be compared,
// one warning says so.
Result<OpenedRows> OpenRowSource(const ComputeConfig& config, const io::Checkpoint& checkpoint,
                                 const client::ModelTables& tables);

}  // namespace engram::compute
