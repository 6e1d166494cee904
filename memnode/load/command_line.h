// engram-load's flags.
#pragma once

#include <optional>
#include <string>

#include "common/base/status.h"
#include "memnode/load/load_options.h"

namespace engram::memnode::load {

// No value: --help was asked for, `*help` is the text. INVALID_ARGUMENT says what is wrong.
Result<std::optional<LoadOptions>> ParseCommandLine(int argc, const char* const* argv,
                                                    std::string* help);

}  // namespace engram::memnode::load
