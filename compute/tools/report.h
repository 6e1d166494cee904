// The figures of one run, for people and for scripts.
#pragma once

#include <string>

#include "compute/engine/engine.h"
#include "compute/tools/session.h"

namespace engram::compute {

// Lines for stderr: tokens a second, rows by node, exposed wait by Engram layer.
std::string TextReport(const Session& session, const EngineStats& stats);

// A JSON object: tokens, logprobs (9 significant digits), text, and every figure of the text
// report.
std::string JsonReport(const Session& session, const EngineStats& stats,
                       const Generation& generation, const std::string& text);

}  // namespace engram::compute
