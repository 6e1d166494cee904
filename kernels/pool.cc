#include "kernels/pool.h"

#include <algorithm>

#include "common/base/check.h"

namespace engram::kernels {
namespace {

// About 20 us of pauses: longer than the gaps between the loops of a decode step, far below a
// scheduler tick.
constexpr int kSpinsMax = 1000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

template <typename Done>
bool SpinUntil(const Done& done) {
  for (int i = 0; i < kSpinsMax; ++i) {
    if (done()) return true;
    Pause();
  }
  return done();
}

}  // namespace

Pool::Pool(int threads) {
  CHECK(threads >= 1 && threads <= kThreadsMax) << "threads " << threads;
  for (int share = 1; share < threads; ++share) {
    workers_.emplace_back([this, share] { Work(share); });
  }
}

Pool::~Pool() {
  {
    const std::lock_guard lock(mutex_);
    stop_.store(true);
  }
  started_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::RunShare(const Job& job, int share) const {
  const int64_t units = (job.count + job.grain - 1) / job.grain;
  const int64_t begin = std::min(job.count, units * share / threads() * job.grain);
  const int64_t end = std::min(job.count, units * (share + 1) / threads() * job.grain);
  if (begin < end) job.call(job.body, begin, end);
}

void Pool::RunErased(const Job& job) {
  if (job.count <= 0) return;
  if (workers_.empty() || job.count <= job.grain) return job.call(job.body, 0, job.count);
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
    unfinished_.store(static_cast<int>(workers_.size()));
    epoch_.fetch_add(1);
  }
  started_.notify_all();
  RunShare(job, 0);
  const auto done = [this] { return unfinished_.load() == 0; };
  if (SpinUntil(done)) return;
  std::unique_lock lock(mutex_);
  finished_.wait(lock, done);
}

void Pool::Work(int share) {
  uint64_t seen = 0;
  while (true) {
    const auto due = [&] { return stop_.load() || epoch_.load() != seen; };
    if (!SpinUntil(due)) {
      std::unique_lock lock(mutex_);
      started_.wait(lock, due);
    }
    if (stop_.load()) return;
    ++seen;  // the caller waits for every worker, so no job is ever skipped
    RunShare(job_, share);
    if (unfinished_.fetch_sub(1) == 1) {
      const std::lock_guard lock(mutex_);
      finished_.notify_one();
    }
  }
}

}  // namespace engram::kernels
