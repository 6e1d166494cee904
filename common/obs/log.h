// Logging: one line an event, "message key=value ...", to stderr. The only place that includes
// spdlog.
#pragma once

#include <string>
#include <string_view>

#include "common/base/status.h"

namespace engram::obs {

// Name of the program shown on each line; level is trace|debug|info|warn|error|off.
Status InitLog(std::string_view program, std::string_view level);

void LogDebug(std::string_view line);
void LogInfo(std::string_view line);
void LogWarn(std::string_view line);
void LogError(std::string_view line);

}  // namespace engram::obs
