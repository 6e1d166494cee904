// engram-load's work from options to exit code: a single run, a search for the knee, or a sweep;
// then the reports.
#pragma once

#include "memnode/load/load_options.h"

namespace engram::memnode::load {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,   // bad options, nothing reached, a step failed (but for the knee), no knee
  kExitWrong = 2,    // a row came back wrong
  kExitRefused = 3,  // the tester could not keep its own schedule
};

// Prints what it finds; messages of failures go to stderr.
int RunLoad(const LoadOptions& options);

}  // namespace engram::memnode::load
