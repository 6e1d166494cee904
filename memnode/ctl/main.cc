// engramctl: looks at, makes and checks table sets from the command line.
#include <vector>

#include "common/base/standard_streams.h"
#include "memnode/ctl/cluster/cluster_commands.h"
#include "memnode/ctl/cluster/roll_command.h"
#include "memnode/ctl/digest_command.h"
#include "memnode/ctl/dump_command.h"
#include "memnode/ctl/hash_command.h"
#include "memnode/ctl/hotset/hotset_command.h"
#include "memnode/ctl/import_command.h"
#include "memnode/ctl/layout_command.h"
#include "memnode/ctl/make_model/make_model_command.h"
#include "memnode/ctl/status/status_command.h"
#include "memnode/ctl/verify_command.h"
#include "memnode/ctl/version_commands.h"

namespace {

int Run(int argc, char** argv) {
  using engram::ctl::Subcommand;
  CLI::App app("Tools for Engram models and their tables", "engramctl");
  app.require_subcommand(1);
  std::vector<Subcommand> commands = {
      engram::ctl::AddDigestCommand(app),    engram::ctl::AddDumpCommand(app),
      engram::ctl::AddHashCommand(app),      engram::ctl::AddHotsetCommand(app),
      engram::ctl::AddImportCommand(app),    engram::ctl::AddLayoutCommand(app),
      engram::ctl::AddMakeModelCommand(app), engram::ctl::AddRollCommand(app),
      engram::ctl::AddStatusCommand(app),    engram::ctl::AddVerifyCommand(app),
  };
  for (const Subcommand& command : engram::ctl::AddVersionCommands(app)) {
    commands.push_back(command);
  }
  for (const Subcommand& command : engram::ctl::AddClusterCommands(app)) {
    commands.push_back(command);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    engram::PrintError("engramctl", error.what());
    return 1;
  }
  for (const Subcommand& command : commands) {
    if (!command.app->parsed()) continue;
    const engram::Status status = command.run();
    if (!status.ok()) {
      engram::PrintError("engramctl", status.message());
      return 1;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return engram::RunProgram("engramctl", [&] { return Run(argc, argv); });
}
