#include "memnode/run.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>

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

// Stdout carries the ready line alone: what libraries print there (UCX its warnings) goes to
// stderr. Returns a descriptor of the real stdout.
Result<int> TakeStdout() {
  const int real_stdout = dup(STDOUT_FILENO);
  if (real_stdout < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
    return InternalError(fmt::format("redirecting stdout: {}", std::strerror(errno)));
  }
  return real_stdout;
}

Status WriteLine(int file, std::string_view line) {
  if (write(file, line.data(), line.size()) == static_cast<ssize_t>(line.size())) {
    return OkStatus();
  }
  return InternalError(fmt::format("writing the ready line: {}", std::strerror(errno)));
}

// poll, not read: ThreadSanitizer runs a handler during the one, and after the other returns.
void WaitForSignal() {
  pollfd readable = {.fd = signal_pipe[0], .events = POLLIN, .revents = 0};
  while (poll(&readable, 1, -1) < 0 && errno == EINTR) {
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
  ASSIGN_OR_RETURN(const int real_stdout, TakeStdout());
  ASSIGN_OR_RETURN(const std::unique_ptr<Node> node, Node::Start(config));
  RETURN_IF_ERROR(CatchSignals());
  RETURN_IF_ERROR(
      WriteLine(real_stdout, fmt::format("ready member={} control={} http={}\n", config.node_name,
                                         node->control_address(), node->http_address())));
  WaitForSignal();
  obs::LogInfo("signal received, draining");
  node->Drain();
  return OkStatus();
}

}  // namespace engram::memnode
