// engramctl roll: starts all members again, one after the other.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddRollCommand(CLI::App& parent);

}  // namespace engram::ctl
