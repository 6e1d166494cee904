// The figures of one run, for people and for scripts.
#pragma once

#include <string>

#include "compute/engine/run_completion.h"

namespace engram::compute {

// Lines for stderr: tokens a second, rows by node, exposed wait by Engram layer.
std::string TextReport(const EngineSnapshot& figures);

// A JSON object: tokens, logprobs (9 significant digits), text, and every figure of the text
// report.
std::string JsonReport(const EngineSnapshot& figures, const Completion& completion,
                       const std::string& text);

}  // namespace engram::compute
