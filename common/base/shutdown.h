// A server's ready line on stdout, and the signals that ask it to stop. Call from main's thread.
#pragma once

#include <string_view>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace engram {

// Stdout carries the ready line alone: what libraries print there (UCX its warnings) goes to stderr
// from now on. Returns a descriptor of the real stdout.
Result<int> TakeStdout();
// Writes one whole line.
Status WriteLine(int file, std::string_view line);

// From now on the first SIGTERM or SIGINT is only noted; the second one kills.
Status CatchShutdownSignals();
void WaitForShutdownSignal();

}  // namespace engram
