#include "compute/tools/row_source.h"

#include "common/client/local_table.h"

namespace engram::compute {

Result<std::unique_ptr<client::RowSource>> OpenRowSource(const ComputeConfig& config,
                                                         const io::Checkpoint& checkpoint,
                                                         const client::ModelTables& tables) {
  if (config.lookup.memnodes.empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<client::LocalTable> local,
                     client::LocalTable::Open(&checkpoint, tables.layout, tables.identity));
    return std::unique_ptr<client::RowSource>(std::move(local));
  }
  return config.lookup.Connect(tables.layout, tables.identity);
}

}  // namespace engram::compute
