#include "memnode/ctl/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace engram::ctl {

ProgressLine::ProgressLine(std::string what)
    : what_(std::move(what)), shown_(isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressLine::Draw(uint64_t done, uint64_t total, uint64_t bytes) {
  if (!shown_ || total == 0) return;
  if (!drawn_) first_done_ = done;  // what a run before this one did says nothing of the rate
  drawn_ = true;
  constexpr int kWidth = 30;
  const std::chrono::duration<double> spent = Clock::Real().Now() - begin_;
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double rate = static_cast<double>(done - std::min(done, first_done_)) / spent.count();
  const double left = rate > 0 ? static_cast<double>(total - std::min(done, total)) / rate : 0;
  const auto filled = static_cast<int>(share * kWidth);
  std::string text = fmt::format("{} [{:#<{}}{:.<{}}] {:.1f} %", what_, "", filled, "",
                                 kWidth - filled, share * 100);
  if (bytes > 0)
    text += fmt::format(", {:.0f} MB/s", static_cast<double>(bytes) / spent.count() / 1e6);
  if (bytes == 0) text += fmt::format(", {:.2f} M/s", rate / 1e6);
  text += fmt::format(", {:.0f} s left", left);
  fmt::print(stderr, "\r\x1b[K{}", text);
  std::fflush(stderr);
}

}  // namespace engram::ctl
