#include "common/base/check.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace engram::base_internal {
namespace {

constexpr int kStderrWaitMs = 1000;

}  // namespace

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  stream_ << file << ":" << line << ": CHECK failed: " << condition << " ";
}

// A pipe that poll() calls writable takes PIPE_BUF bytes at once: a reader of stderr that stands
// still does not keep the process from ending.
CheckFailure::~CheckFailure() {
  stream_ << "\n";
  const std::string text = stream_.str();
  pollfd entry = {STDERR_FILENO, POLLOUT, 0};
  if (::poll(&entry, 1, kStderrWaitMs) > 0) {
    (void)!::write(STDERR_FILENO, text.data(), std::min<size_t>(text.size(), PIPE_BUF));
  }
  std::abort();
}

}  // namespace engram::base_internal
