#include "memnode/run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "common/obs/log.h"
#include "memnode/node.h"

namespace engram::memnode {
namespace {

int signal_pipe[2] = {-1, -1};  // handlers can reach only globals

void OnSignal(int) {
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(signal_pipe[1], &byte, 1);
}

Status CatchSignals() {
  if (pipe(signal_pipe) != 0) {
    return InternalError(fmt::format("making a pipe: {}", std::strerror(errno)));
  }
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESETHAND | SA_RESTART;  // the second signal kills
  for (const int number : {SIGTERM, SIGINT}) {
    if (sigaction(number, &action, nullptr) != 0) {
      return InternalError(fmt::format("catching signal {}: {}", number, std::strerror(errno)));
    }
  }
  return OkStatus();
}

void WaitForSignal() {
  char byte = 0;
  while (read(signal_pipe[0], &byte, 1) < 0 && errno == EINTR) {
  }
}

}  // namespace

Status RunUntilSignal(const NodeConfig& config) {
  RETURN_IF_ERROR(config.Validate());
  RETURN_IF_ERROR(obs::InitLog("memnode", config.log_level).WithContext("log.level"));
  config::Fields fields;
  NodeConfig in_force = config;
  in_force.Describe(fields);
  obs::LogInfo("configuration in force:\n" + config::Dump(fields, false));
  ASSIGN_OR_RETURN(const std::unique_ptr<Node> node, Node::Start(config));
  RETURN_IF_ERROR(CatchSignals());
  fmt::print("ready member={} control={} http={}\n", config.node_name, node->control_address(),
             node->http_address());
  std::fflush(stdout);
  WaitForSignal();
  obs::LogInfo("signal received, draining");
  node->Drain();
  return OkStatus();
}

}  // namespace engram::memnode
