// The program: starts a node, says so on stdout, and runs until SIGTERM or SIGINT.
#pragma once

#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/node/config.h"

namespace engram::memnode {

// Prints "ready member=NAME control=HOST:PORT http=HOST:PORT" on stdout once the node serves. The
// first SIGTERM or SIGINT drains; a second one kills. A signal before ready kills: nothing is lost,
// an import is redone. Where a tool asks for a restart (engramctl roll) the process drains, and
// starts as `argv` again, on the ports that it had.
Status RunUntilSignal(const NodeConfig& config, std::vector<std::string> argv);

}  // namespace engram::memnode
