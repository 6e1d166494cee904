// Where this engine's rows come from, as the configuration says: memory nodes, or the checkpoint
// itself.
#pragma once

#include <memory>

#include "common/client/model_tables.h"
#include "common/client/row_source.h"
#include "common/io/safetensors.h"
#include "compute/config.h"

namespace engram::compute {

// `checkpoint` and `tables` must outlive the source.
Result<std::unique_ptr<client::RowSource>> OpenRowSource(const ComputeConfig& config,
                                                         const io::Checkpoint& checkpoint,
                                                         const client::ModelTables& tables);

}  // namespace engram::compute
