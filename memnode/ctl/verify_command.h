// engramctl verify: reads table sets whole and says what of them is damaged.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddVerifyCommand(CLI::App& parent);

}  // namespace engram::ctl
