#include "compute/tools/row_source.h"

#include "common/client/local_table.h"
#include "common/client/lookup_client.h"

namespace engram::compute {

Result<std::unique_ptr<client::RowSource>> OpenRowSource(const ComputeConfig& config,
                                                         const io::Checkpoint& checkpoint,
                                                         const client::ModelTables& tables) {
  if (config.lookup.memnodes.empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<client::LocalTable> local,
                     client::LocalTable::Open(&checkpoint, tables.layout, tables.identity));
    return std::unique_ptr<client::RowSource>(std::move(local));
  }
  RETURN_IF_ERROR(config.lookup.Validate());
  ASSIGN_OR_RETURN(client::LookupClientOptions options, config.lookup.Options());
  options.identity = tables.identity;
  ASSIGN_OR_RETURN(std::unique_ptr<client::LookupClient> cluster,
                   client::LookupClient::Connect(options, tables.layout));
  return std::unique_ptr<client::RowSource>(std::move(cluster));
}

}  // namespace engram::compute
