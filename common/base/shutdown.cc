#include "common/base/shutdown.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

namespace engram {
namespace {

int signal_pipe[2] = {-1, -1};  // handlers can reach only globals

void OnSignal(int) {
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(signal_pipe[1], &byte, 1);
}

Status Failed(const std::string& what) { return InternalError(what + ": " + std::strerror(errno)); }

}  // namespace

Result<int> TakeStdout() {
  const int real_stdout = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
  if (real_stdout < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
    return Failed("redirecting stdout");
  }
  return real_stdout;
}

Status WriteLine(int file, std::string_view line) {
  const std::string text = std::string(line) + "\n";
  if (write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size())) return OkStatus();
  return Failed("writing the ready line");
}

Status CatchShutdownSignals() {
  if (pipe2(signal_pipe, O_CLOEXEC) != 0) return Failed("making a pipe");
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESETHAND | SA_RESTART;  // the second signal kills
  for (const int number : {SIGTERM, SIGINT}) {
    if (sigaction(number, &action, nullptr) != 0) {
      return Failed("catching signal " + std::to_string(number));
    }
  }
  return OkStatus();
}

// poll, not read: ThreadSanitizer runs a handler during the one, and after the other returns.
void WaitForShutdownSignal() {
  pollfd readable = {.fd = signal_pipe[0], .events = POLLIN, .revents = 0};
  while (poll(&readable, 1, -1) < 0 && errno == EINTR) {
  }
}

void AskForShutdown() { OnSignal(SIGTERM); }

Status Become(const std::vector<std::string>& argv, int real_stdout) {
  std::vector<char*> pointers;
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  if (dup2(real_stdout, STDOUT_FILENO) < 0) return Failed("restoring stdout");
  execvp(pointers[0], pointers.data());
  return Failed("starting " + argv[0] + " again");
}

}  // namespace engram
