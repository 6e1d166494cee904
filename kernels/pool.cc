#include "kernels/pool.h"

#include <algorithm>
#include <chrono>

#include "common/base/check.h"
#include "common/base/threads.h"

namespace engram::kernels {
namespace {

// Longer than what one thread does alone between two loops of a decode step (10 to 50 us), far
// below a scheduler tick: a waiting thread is woken in 50 us or more on a virtual machine. With 20
// us a token of the small preset on two threads had 35 context switches.
constexpr auto kSpinTime = std::chrono::microseconds(200);

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Of what a thread expects to read: as much as stays in its second-level cache beside the rest.
constexpr int64_t kExpectedMax = 256 << 10;

// Pauses that take kSpinTime: from a few cycles each to 140, by processor.
int SpinsOf() {
  constexpr int kTried = 2000;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kTried; ++i) Pause();
  const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - start;
  const auto spins =
      kTried * std::chrono::nanoseconds(kSpinTime).count() / std::max<int64_t>(1, took.count());
  return static_cast<int>(std::clamp<int64_t>(spins, 1000, 200'000));
}

}  // namespace

// While it waits it asks for what the share expects to read, a few lines at a time.
template <typename Done>
bool Pool::SpinUntil(int share, const Done& done) {
  static const int spins_max = SpinsOf();
  constexpr int kLinesAtOnce = 8;
  uintptr_t next = of_shares_[share].expected.exchange(0);
  const uintptr_t end =
      next == 0 ? 0 : next + std::min(kExpectedMax, of_shares_[share].expected_bytes.load());
  for (int i = 0; i < spins_max; ++i) {
    if (done()) return true;
    if (next >= end) Pause();
    for (int line = 0; line < kLinesAtOnce && next < end; ++line, next += 64) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr): an address that is asked for, never read.
      __builtin_prefetch(reinterpret_cast<const void*>(next), 0, 2);
    }
  }
  return done();
}

Pool::Pool(int threads) {
  CHECK(threads >= 1 && threads <= kThreadsMax) << "threads " << threads;
  const auto wanted = static_cast<size_t>(threads - 1);
  const size_t count = wanted == 0 ? 0 : ThreadsToBeHad(wanted);
  for (int share = 1; workers_.size() < count; ++share) {
    Result<std::thread> started = StartThread("engine pool", [this, share] { Work(share); });
    if (!started.ok()) break;
    workers_.push_back(*std::move(started));
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
  if (begin < end) job.call(job.body, begin, end, share);
}

void Pool::TryShare(uint64_t epoch, int share) {
  uint64_t before = epoch - 1;
  if (!begun_[share].compare_exchange_strong(before, epoch)) return;
  RunShare(job_, share);  // stays as it is until this share is finished
  if (unfinished_.fetch_sub(1) == 1) {
    const std::lock_guard lock(mutex_);
    finished_.notify_one();
  }
}

void Pool::RunErased(const Job& job) {
  if (job.count <= 0) return;
  if (workers_.empty() || job.count <= job.grain) return job.call(job.body, 0, job.count, 0);
  uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
    unfinished_.store(threads());
    epoch = epoch_.fetch_add(1) + 1;
  }
  started_.notify_all();
  for (int share = 0; share < threads(); ++share) TryShare(epoch, share);
  const auto done = [this] { return unfinished_.load() == 0; };
  if (SpinUntil(0, done)) return;
  std::unique_lock lock(mutex_);
  finished_.wait(lock, done);
}

void Pool::Work(int share) {
  uint64_t seen = 0;
  while (true) {
    const auto due = [&] { return stop_.load() || epoch_.load() != seen; };
    if (!SpinUntil(share, due)) {
      std::unique_lock lock(mutex_);
      started_.wait(lock, due);
    }
    if (stop_.load()) return;
    seen = epoch_.load();
    TryShare(seen, share);
  }
}

}  // namespace engram::kernels
