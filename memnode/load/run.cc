#include "memnode/load/run.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "common/client/local_table.h"
#include "common/client/lookup_client.h"
#include "common/client/model_tables.h"
#include "common/io/safetensors.h"
#include "common/net/ucx_transport.h"
#include "memnode/load/report.h"

namespace engram::memnode::load {
namespace {

Result<std::unique_ptr<client::RowSource>> ConnectService(const RunOptions& options,
                                                          const client::ModelTables& tables) {
  client::LookupClientOptions client_options;
  client_options.memnodes = options.memnodes;
  client_options.identity = tables.identity;
  client_options.make_transport = [&options] {
    net::UcxOptions ucx;
    ucx.net_devices = options.net_devices;
    return net::MakeUcxTransport(ucx);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<client::LookupClient> cluster,
                   client::LookupClient::Connect(client_options, tables.layout));
  return std::unique_ptr<client::RowSource>(std::move(cluster));
}

}  // namespace

Status Run(const RunOptions& options) {
  ASSIGN_OR_RETURN(
      const client::ModelTables tables,
      client::LoadModelTables(options.model_dir, options.model_name, options.model_version));
  std::unique_ptr<io::Checkpoint> checkpoint;  // outlives the two sources below
  std::unique_ptr<client::RowSource> reference;
  std::unique_ptr<client::RowSource> service;
  if (options.loop.verify_every > 0 || options.memnodes.empty()) {
    ASSIGN_OR_RETURN(io::Checkpoint opened, io::Checkpoint::Open(options.model_dir));
    checkpoint = std::make_unique<io::Checkpoint>(std::move(opened));
    ASSIGN_OR_RETURN(reference,
                     client::LocalTable::Open(checkpoint.get(), tables.layout, tables.identity));
  }
  if (!options.memnodes.empty()) {
    ASSIGN_OR_RETURN(service, ConnectService(options, tables));
  }
  ASSIGN_OR_RETURN(const LoadResult result,
                   RunClosedLoop(options.loop, tables.layout,
                                 service != nullptr ? *service : *reference, reference.get()));
  std::fputs(TextReport(result).c_str(), stdout);
  if (!options.json_file.empty()) RETURN_IF_ERROR(WriteJsonReport(result, options.json_file));
  if (result.wrong_rows > 0) {
    return DataLoss(fmt::format("{} of {} verified rows differ from the checkpoint in {}",
                                result.wrong_rows, result.verified_rows, options.model_dir));
  }
  if (result.errors > 0) return Unavailable("the load stopped: " + result.first_error);
  return OkStatus();
}

}  // namespace engram::memnode::load
