// engramctl hotset: counts the n-grams of texts, writes the most frequent ones as a hot set, and
// says what share of further text they would serve.
#pragma once

#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

Subcommand AddHotsetCommand(CLI::App& parent);

}  // namespace engram::ctl
