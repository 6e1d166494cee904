#include "compute/tools/row_source.h"

#include "common/client/local_table.h"
#include "common/client/lookup_client.h"
#include "common/net/ucx_transport.h"

namespace engram::compute {

Result<std::unique_ptr<client::RowSource>> OpenRowSource(const ComputeConfig& config,
                                                         const io::Checkpoint& checkpoint,
                                                         const client::ModelTables& tables) {
  if (config.memnodes.empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<client::LocalTable> local,
                     client::LocalTable::Open(&checkpoint, tables.layout, tables.identity));
    return std::unique_ptr<client::RowSource>(std::move(local));
  }
  client::LookupClientOptions options;
  options.memnodes = config.memnodes;
  options.identity = tables.identity;
  options.connect_timeout_ms = static_cast<uint32_t>(config.connect_timeout_ms);
  const net::UcxOptions wire{.tls = config.tls, .net_devices = config.net_devices};
  options.make_transport = [wire] { return net::MakeUcxTransport(wire); };
  ASSIGN_OR_RETURN(std::unique_ptr<client::LookupClient> cluster,
                   client::LookupClient::Connect(options, tables.layout));
  return std::unique_ptr<client::RowSource>(std::move(cluster));
}

}  // namespace engram::compute
