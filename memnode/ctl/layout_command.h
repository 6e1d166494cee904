// engramctl layout: multipliers, primes, offsets and row counts that a model's config asks for.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddLayoutCommand(CLI::App& parent);

}  // namespace engram::ctl
