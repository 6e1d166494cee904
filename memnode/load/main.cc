// engram-load: loads the lookup path of a cluster, times it, and verifies what comes back.
#include <cstdio>

#include "common/base/standard_streams.h"
#include "memnode/load/command_line.h"
#include "memnode/load/run.h"

using namespace engram::memnode::load;

namespace {

int Run(int argc, char** argv) {
  std::string help;
  const auto options = ParseCommandLine(argc, argv, &help);
  if (!options.ok()) {
    engram::PrintError("engram-load", options.status().message());
    return kExitFailed;
  }
  if (!options->has_value()) {
    std::fputs(help.c_str(), stdout);
    return kExitOk;
  }
  return RunLoad(**options);
}

}  // namespace

int main(int argc, char** argv) {
  return engram::RunProgram("engram-load", [&] { return Run(argc, argv); });
}
