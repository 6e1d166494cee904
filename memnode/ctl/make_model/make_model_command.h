// engramctl make-model: a complete seeded model folder.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddMakeModelCommand(CLI::App& parent);

}  // namespace engram::ctl
