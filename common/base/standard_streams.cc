#include "common/base/standard_streams.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

namespace engram {
namespace {

constexpr std::string_view kNoOutput = "cannot write to standard output or standard error";

void OpenStandardStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number, so this one.
    [[maybe_unused]] const int opened = ::open("/dev/null", O_RDWR);
  }
}

}  // namespace

int RunProgram(std::string_view program, const std::function<int()>& body) {
  OpenStandardStreams();
  int code = 0;
  try {
    code = body();
  } catch (const std::system_error& error) {
    PrintError(program, fmt::format("{}: {}", kNoOutput, error.what()));
    return 1;
  }
  if ((std::fflush(stdout) == 0 && std::ferror(stdout) == 0) || code != 0) return code;
  PrintError(program, "cannot write to standard output");
  return 1;
}

void PrintError(std::string_view program, std::string_view message) {
  const std::string line = fmt::format("{}: {}\n", program, message);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace engram
