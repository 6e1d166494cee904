#include "common/obs/log.h"

#include <fmt/core.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <system_error>
#include <thread>

#include "common/obs/line_limit.h"
#include "common/obs/log_samples.h"
#include "common/obs/stderr_sink.h"

namespace engram::obs {
namespace {

constexpr const char* kPattern = "%Y-%m-%dT%H:%M:%S.%e %L %n: %v";
constexpr Nanos kExitFlush = std::chrono::seconds(1);
constexpr Nanos kFlushPoll = std::chrono::milliseconds(1);

// What the log consists of after InitLog. Never destroyed: its thread may stand in poll() when the
// process ends.
struct Output {
  std::shared_ptr<StderrSink> sink = std::make_shared<StderrSink>();
  std::shared_ptr<spdlog::details::thread_pool> pool;  // null once the process ends
  std::shared_ptr<spdlog::logger> logger;
  std::atomic<uint64_t> submitted = 0;
};

std::atomic<Output*> output = nullptr;  // null: before InitLog, and once the process ends
std::atomic<Output*> ended = nullptr;   // what it was: other threads may still be writing a line

LineLimit& Limit() {
  static LineLimit& limit = *new LineLimit(kLogBurst, kLogLinesPerSecond);
  return limit;
}

// A reader that has gone is an error of write(), not the end of the process.
void BlockSigpipe() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

bool Drained(const Output& out) {
  return out.sink->taken() + out.pool->overrun_counter() >= out.submitted;
}

void FlushAtExit() {
  Output* out = output.load();
  const bool flushed = FlushLog(kExitFlush);
  ended = out;
  output = nullptr;
  spdlog::set_level(spdlog::level::off);  // what is logged from here on has no thread to write it
  out->sink->StopWaiting();
  if (flushed) out->pool.reset();  // joins its thread, which is idle
}

std::string Printable(std::string_view line) {
  std::string text;
  text.reserve(line.size());
  for (const char c : line.substr(0, kLogLineBytesMax)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      text += fmt::format("\\x{:02x}", byte);
    } else {
      text += c;
    }
  }
  if (line.size() > kLogLineBytesMax) {
    text += fmt::format(" ... ({} bytes left out)", line.size() - kLogLineBytesMax);
  }
  return text;
}

void Hand(spdlog::level::level_enum level, std::string_view text) {
  Output* out = output.load();
  if (out == nullptr) return spdlog::log(level, "{}", text);
  if (!out->logger->should_log(level)) return;
  ++out->submitted;
  out->logger->log(level, "{}", text);
}

void HandLimited(spdlog::level::level_enum level, std::string_view line,
                 const std::source_location& where) {
  const LineLimit::Verdict verdict =
      Limit().Ask(where.file_name(), where.line(), Clock::Real().Now());
  if (!verdict.write) return;
  std::string text = Printable(line);
  if (verdict.left_out > 0) text += fmt::format(" lines_left_out={}", verdict.left_out);
  Hand(level, text);
}

}  // namespace

Status InitLog(std::string_view program, std::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return InvalidArgument(
        fmt::format("log level '{}': expected trace, debug, info, warn, error or off", level));
  }
  std::unique_ptr<Output> made;
  if (output.load() == nullptr) {
    made = std::make_unique<Output>();
    try {
      made->pool = std::make_shared<spdlog::details::thread_pool>(kLogQueueMax, 1, BlockSigpipe);
    } catch (const std::system_error& error) {
      return ResourceExhausted(fmt::format(
          "cannot start the log's thread: {}; see ulimit -u and pids.max", error.what()));
    }
  }
  Output& out = made ? *made : *output.load();
  out.logger = std::make_shared<spdlog::async_logger>(
      std::string(program), out.sink, out.pool, spdlog::async_overflow_policy::overrun_oldest);
  out.logger->set_pattern(kPattern);
  out.logger->set_level(parsed);
  if (made == nullptr) return OkStatus();
  output = made.release();
  std::atexit(FlushAtExit);
  return OkStatus();
}

void LogDebug(std::string_view line) { Hand(spdlog::level::debug, Printable(line)); }

void LogInfo(std::string_view line, const std::source_location& where) {
  HandLimited(spdlog::level::info, line, where);
}

void LogWarn(std::string_view line, const std::source_location& where) {
  HandLimited(spdlog::level::warn, line, where);
}

void LogError(std::string_view line, const std::source_location& where) {
  HandLimited(spdlog::level::err, line, where);
}

void LogText(std::string_view lines) { Hand(spdlog::level::info, lines); }

LogFigures GetLogFigures() {
  LogFigures figures;
  figures.suppressed = Limit().suppressed();
  if (const Output* out = output.load(); out != nullptr) {
    figures.dropped = out->sink->dropped() + out->pool->overrun_counter();
  }
  return figures;
}

std::vector<Sample> LogSamples(const std::string& name) {
  const LogFigures figures = GetLogFigures();
  Sample dropped;
  dropped.name = name + "_log_lines_dropped_total";
  dropped.help = "Log lines not written since the reader of stderr was too slow, or gone";
  dropped.kind = Sample::Kind::kCounter;
  dropped.value = static_cast<double>(figures.dropped);
  Sample suppressed = dropped;
  suppressed.name = name + "_log_lines_suppressed_total";
  suppressed.help = "Log lines not written since their place had written too many";
  suppressed.value = static_cast<double>(figures.suppressed);
  return {std::move(dropped), std::move(suppressed)};
}

bool FlushLog(Nanos timeout) {
  const Output* out = output.load();
  if (out == nullptr) return true;
  const TimePoint deadline = Clock::Real().Now() + timeout;
  while (!Drained(*out)) {
    if (Clock::Real().Now() >= deadline) return false;
    std::this_thread::sleep_for(kFlushPoll);
  }
  return true;
}

}  // namespace engram::obs
