// Logging: one line an event, "message key=value ...", to stderr. The only place that includes
// spdlog.
//
// A caller never waits for the reader of stderr: its line goes into a queue of kLogQueueMax lines,
// which a thread of the log's own writes. While the reader takes nothing the oldest queued lines
// are dropped and counted. Each place in the code that logs may write kLogBurst lines at once and
// kLogLinesPerSecond afterwards, so that a stranger's requests cannot fill a disk; the next line of
// that place says how many were left out. Debug lines are not limited so.
//
// Any thread, before and after InitLog. Before it lines are written by the caller itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace engram::obs {

constexpr size_t kLogQueueMax = 4096;      // lines
constexpr size_t kLogLineBytesMax = 4096;  // the rest of a longer line is left out
constexpr double kLogBurst = 100;          // lines of one place
constexpr double kLogLinesPerSecond = 1;

// Name of the program shown on each line; level is trace|debug|info|warn|error|off. Starts the
// log's thread (RESOURCE_EXHAUSTED when it cannot start); a second call, while no thread logs,
// changes name and level. Lines queued at exit are written if that takes at most a second.
Status InitLog(std::string_view program, std::string_view level);

// Control characters, which a peer may have put into a message, are written as \xNN.
void LogDebug(std::string_view line);
void LogInfo(std::string_view line,
             const std::source_location& where = std::source_location::current());
void LogWarn(std::string_view line,
             const std::source_location& where = std::source_location::current());
void LogError(std::string_view line,
              const std::source_location& where = std::source_location::current());
// Several lines that no peer had a part in; not limited, written as they are.
void LogText(std::string_view lines);

// Lines that were not written, since the process started.
struct LogFigures {
  uint64_t dropped = 0;     // the reader of stderr was too slow, or is gone
  uint64_t suppressed = 0;  // their place had written too many
};
LogFigures GetLogFigures();

// Returns once every line logged before the call is written or dropped; false after `timeout`.
bool FlushLog(Nanos timeout);

}  // namespace engram::obs
