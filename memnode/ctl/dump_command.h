// engramctl dump: prints one row, raw and decoded, and where it lies.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddDumpCommand(CLI::App& parent);

}  // namespace engram::ctl
