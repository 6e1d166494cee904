// One engramctl command: its place in the command line, and what runs when it was given.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "common/base/status.h"

namespace engram::ctl {

struct Subcommand {
  CLI::App* app = nullptr;
  std::function<Status()> run;
};

}  // namespace engram::ctl
