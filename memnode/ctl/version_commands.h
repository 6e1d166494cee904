// engramctl versions, publish, rollback, pin, unpin and drop: what a static cluster serves, changed
// on all of its nodes or on none.
#pragma once

#include <vector>

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

std::vector<Subcommand> AddVersionCommands(CLI::App& parent);

}  // namespace engram::ctl
