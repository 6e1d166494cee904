// engramctl status: how the members of a cluster are, once or over and over.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddStatusCommand(CLI::App& parent);

}  // namespace engram::ctl
