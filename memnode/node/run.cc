#include "memnode/node/run.h"

#include <fmt/format.h>

#include "common/base/shutdown.h"
#include "common/obs/log.h"
#include "memnode/node/node.h"

namespace engram::memnode {

Status RunUntilSignal(const NodeConfig& config) {
  RETURN_IF_ERROR(config.Validate());
  RETURN_IF_ERROR(obs::InitLog("memnode", config.log_level).WithContext("log.level"));
  config::Fields fields;
  NodeConfig in_force = config;
  in_force.Describe(fields);
  obs::LogText("configuration in force:\n" + config::Dump(fields, false));
  ASSIGN_OR_RETURN(const int real_stdout, TakeStdout());
  ASSIGN_OR_RETURN(const std::unique_ptr<Node> node, Node::Start(config));
  RETURN_IF_ERROR(CatchShutdownSignals());
  RETURN_IF_ERROR(
      WriteLine(real_stdout, fmt::format("ready member={} control={} http={}", config.node_name,
                                         node->control_address(), node->http_address())));
  WaitForShutdownSignal();
  obs::LogInfo("signal received, draining");
  node->Drain();
  return OkStatus();
}

}  // namespace engram::memnode
