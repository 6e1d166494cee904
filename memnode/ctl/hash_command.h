// engramctl hash: which rows some tokens read, per layer and position.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddHashCommand(CLI::App& parent);

}  // namespace engram::ctl
