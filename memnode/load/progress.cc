#include "memnode/load/progress.h"

#include <fmt/format.h>

#include <cstdio>

#include "common/base/threads.h"

namespace engram::memnode::load {

std::string ProgressLine(const SecondFigures& second, double total_seconds) {
  return fmt::format(
      "{} of {:.0f} s   {:.2f} M rows/s   {} steps/s   p50 {:.0f} us   p99 {:.0f} us   outstanding "
      "{}   errors {}",
      second.second + 1, total_seconds, static_cast<double>(second.rows) / 1e6, second.steps,
      second.p50_us, second.p99_us, second.outstanding, second.errors);
}

Progress::Progress(double total_seconds) : total_seconds_(total_seconds) {
  Result<std::thread> started = StartThread("progress", [this] { Print(); });
  if (started.ok()) thread_ = *std::move(started);  // without it no progress is shown
}

Progress::~Progress() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Progress::Show(const SecondFigures& second) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  next_ = second;
  changed_.notify_one();
}

void Progress::Print() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return done_ || next_.has_value(); });
    if (done_) break;
    const std::string line = ProgressLine(*next_, total_seconds_);
    next_.reset();
    lock.unlock();
    fmt::print(stderr, "\r\x1b[K{}", line);
    std::fflush(stderr);
    lock.lock();
  }
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
}

}  // namespace engram::memnode::load
