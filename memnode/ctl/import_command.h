// engramctl import: a model folder into the stores of memory nodes, or into one folder offline.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddImportCommand(CLI::App& parent);

}  // namespace engram::ctl
