// The program: starts a node, says so on stdout, and runs until SIGTERM or SIGINT.
#pragma once

#include "common/base/status.h"
#include "memnode/node/config.h"

namespace engram::memnode {

// Prints "ready member=NAME control=HOST:PORT http=HOST:PORT" on stdout once the node serves. The
// first SIGTERM or SIGINT drains; a second one kills. A signal before ready kills: nothing is lost,
// an import is redone.
Status RunUntilSignal(const NodeConfig& config);

}  // namespace engram::memnode
