// Pool: what operations run with: a few threads that share one loop at a time, and scratch memory
// that lives between two loops. The partition is static, and the thread that computes a share never
// changes a result: the caller computes a share whose thread has not begun with it (it sleeps, or a
// busy neighbour has its core) and waits only for shares that are being computed. Waiting spins a
// bounded time, then sleeps, so a neighbour is not starved either.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/workspace.h"

namespace engram::kernels {

class Pool {
 public:
  static constexpr int kThreadsMax = 64;
  // `threads` counts the caller, which takes part in every loop: 1 starts no thread. Where the
  // machine gives fewer, there are fewer: results do not depend on it.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  Workspace& memory() { return memory_; }  // of the thread that runs loops

  // Calls body(begin, end) on disjoint ranges that cover [0, count), one a thread, cut at multiples
  // of `grain`. Returns when all are done. One caller at a time; not to be called from inside a
  // body. body(begin, end, share) gets a number in [0, threads()) that no other range has.
  template <typename Body>
  void Run(int64_t count, int64_t grain, const Body& body) {
    RunErased({&body,
               [](const void* context, int64_t begin, int64_t end, int64_t share) {
                 const Body& call = *static_cast<const Body*>(context);
                 if constexpr (std::is_invocable_v<const Body&, int64_t, int64_t, int64_t>) {
                   call(begin, end, share);
                 } else {
                   call(begin, end);
                 }
               },
               count, grain});
  }

  // Calls body(i, share) for each i in [0, count), for tasks of unequal size: each thread begins
  // with its part of them, in ascending order, then takes what other threads have not begun. Which
  // thread gets which must not change a result.
  template <typename Body>
  void HandOut(int64_t count, const Body& body) {
    if (workers_.empty() || count <= 1) {
      for (int64_t i = 0; i < count; ++i) body(i, int64_t{0});
      return;
    }
    for (int s = 0; s < threads(); ++s) of_shares_[s].next = FirstOf(count, s);
    Run(threads(), 1, [&](int64_t, int64_t, int64_t share) {
      for (int k = 0; k < threads(); ++k) {
        const int64_t s = (share + k) % threads();
        const int64_t end = FirstOf(count, s + 1);
        for (int64_t i = of_shares_[s].next++; i < end; i = of_shares_[s].next++) body(i, share);
      }
    });
  }

  // What a share of the loop after the next one reads first: a thread that has done its part of the
  // next loop asks for it while it waits, so that memory is busy while one thread works alone. By
  // the caller of loops, between two of them. It is a hint: a thread that looks at this moment may
  // join the old address to the new length, and the bytes may be gone by then; a prefetch of any
  // address is harmless.
  void Expect(int64_t share, std::span<const std::byte> bytes) {
    of_shares_[share].expected_bytes = std::ssize(bytes);
    of_shares_[share].expected = reinterpret_cast<uintptr_t>(bytes.data());
  }
  // Where a share begins with `count` tasks that are handed out.
  int64_t FirstOf(int64_t count, int64_t share) const { return count * share / threads(); }

 private:
  struct Job {
    const void* body = nullptr;
    void (*call)(const void*, int64_t, int64_t, int64_t) = nullptr;
    int64_t count = 0;
    int64_t grain = 1;
  };

  struct alignas(64) OfShare {
    std::atomic<int64_t> next{0};  // task to be handed out
    // What the thread asks for when it waits next, once.
    std::atomic<uintptr_t> expected{0};
    std::atomic<int64_t> expected_bytes{0};
  };

  template <typename Done>
  bool SpinUntil(int share, const Done& done);
  void RunErased(const Job& job);
  // Computes the share if no thread has begun with it in this epoch.
  void TryShare(uint64_t epoch, int share);
  void RunShare(const Job& job, int share) const;
  void Work(int share);

  std::vector<std::thread> workers_;
  Workspace memory_;
  Job job_;
  std::atomic<uint64_t> epoch_{0};  // counts jobs; job_ is published by its increment
  // The last epoch in which a thread began with each share. A share is begun exactly once in each
  // epoch, so that it can only go from e - 1 to e: a thread late for an epoch fails to.
  std::array<std::atomic<uint64_t>, kThreadsMax> begun_{};
  std::array<OfShare, kThreadsMax> of_shares_;
  std::atomic<int> unfinished_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable started_;
  std::condition_variable finished_;
};

}  // namespace engram::kernels
