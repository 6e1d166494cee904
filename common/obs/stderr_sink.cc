#include "common/obs/stderr_sink.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace engram::obs {
namespace {

constexpr int kLookAgainMs = 100;  // at waits_, while stderr takes nothing

}  // namespace

void StderrSink::sink_it_(const spdlog::details::log_msg& message) {
  spdlog::memory_buf_t line;
  formatter_->format(message, line);
  if (!Write({line.data(), line.size()})) ++dropped_;
  ++taken_;
}

// A pipe that poll() calls writable takes PIPE_BUF bytes at once, so that this thread waits in
// poll(), which StopWaiting ends, and not in write().
bool StderrSink::Write(std::string_view bytes) const {
  while (!bytes.empty()) {
    pollfd entry = {STDERR_FILENO, POLLOUT, 0};
    const int ready = ::poll(&entry, 1, waits_ ? kLookAgainMs : 0);
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) {
      if (!waits_) return false;
      continue;
    }
    const ssize_t written =
        ::write(STDERR_FILENO, bytes.data(), std::min<size_t>(bytes.size(), PIPE_BUF));
    if (written < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace engram::obs
