#include "memnode/node/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "common/base/shutdown.h"
#include "common/obs/log.h"
#include "memnode/node/node.h"

namespace engram::memnode {

Status RunUntilSignal(const NodeConfig& config, std::vector<std::string> argv) {
  RETURN_IF_ERROR(config.Validate());
  RETURN_IF_ERROR(obs::InitLog("memnode", config.log_level).WithContext("log.level"));
  config::Fields fields;
  NodeConfig in_force = config;
  in_force.Describe(fields);
  obs::LogText("configuration in force:\n" + config::Dump(fields, false));
  ASSIGN_OR_RETURN(const int real_stdout, TakeStdout());
  ASSIGN_OR_RETURN(std::unique_ptr<Node> node, Node::Start(config));
  RETURN_IF_ERROR(CatchShutdownSignals());
  std::atomic<bool> restart = false;
  node->OnRestart([&] {
    restart = true;
    AskForShutdown();
  });
  RETURN_IF_ERROR(
      WriteLine(real_stdout, fmt::format("ready member={} control={} http={}", config.node_name,
                                         node->control_address(), node->http_address())));
  WaitForShutdownSignal();
  obs::LogInfo("signal received, draining");
  node->Drain();
  for (const std::string& address :
       {"control.listen=" + node->control_address(), "http.listen=" + node->http_address()}) {
    if (std::ranges::count(argv, address) > 0) continue;  // from the restart before
    argv.insert(argv.end(), {"--set", address});
  }
  node.reset();
  if (!restart) return OkStatus();
  obs::LogInfo("starting again");
  obs::FlushLog(std::chrono::seconds(1));
  return Become(argv, real_stdout);
}

}  // namespace engram::memnode
