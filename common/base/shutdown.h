// A server's ready line on stdout, and the signals that ask it to stop. Call from main's thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

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
// As a signal does; after CatchShutdownSignals. Any thread.
void AskForShutdown();

// Becomes argv[0] with these arguments, in the same process, with the real stdout: after an
// upgrade, the new program. Returns only on an error.
Status Become(const std::vector<std::string>& argv, int real_stdout);

}  // namespace engram
