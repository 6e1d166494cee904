// engram-load: loads the lookup path of a cluster, times it, and verifies what comes back.
#include <fmt/format.h>

#include <cstdio>

#include "memnode/load/command_line.h"
#include "memnode/load/run.h"

using namespace engram::memnode::load;

int main(int argc, char** argv) {
  std::string help;
  const auto options = ParseCommandLine(argc, argv, &help);
  if (!options.ok()) {
    fmt::print(stderr, "engram-load: {}\n", options.status().message());
    return kExitFailed;
  }
  if (!options->has_value()) {
    std::fputs(help.c_str(), stdout);
    return kExitOk;
  }
  return RunProgram(**options);
}
