// engramctl add | drain | remove | rebalance | set-replicas | plan ... | resume | cancel: changes
// of a cluster's member list while it serves.
#pragma once

#include <vector>

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

std::vector<Subcommand> AddClusterCommands(CLI::App& parent);

}  // namespace engram::ctl
