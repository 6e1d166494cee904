#include "common/obs/log.h"

#include <fmt/core.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace engram::obs {

Status InitLog(std::string_view program, std::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return InvalidArgument(
        fmt::format("log level '{}': expected trace, debug, info, warn, error or off", level));
  }
  const std::string name(program);
  spdlog::drop(name);
  auto logger = spdlog::stderr_logger_mt(name);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %n: %v");
  logger->set_level(parsed);
  spdlog::set_default_logger(std::move(logger));
  return OkStatus();
}

void LogDebug(std::string_view line) { spdlog::debug("{}", line); }
void LogInfo(std::string_view line) { spdlog::info("{}", line); }
void LogWarn(std::string_view line) { spdlog::warn("{}", line); }
void LogError(std::string_view line) { spdlog::error("{}", line); }

}  // namespace engram::obs
