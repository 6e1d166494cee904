// One thread for work that is too long for a loop's own: runs what is posted, in order. What waits
// is bounded; callers have an answer for a full queue. The thread starts with the first task.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace engram {

class Worker {
 public:
  // At most `waiting_max` tasks wait besides the one that runs.
  explicit Worker(size_t waiting_max);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() { Stop(); }

  // Drops what waits, on the caller's thread, then waits for what runs. Nothing is taken later.
  void Stop();
  // False when the queue is full or no thread can be started: the task is not taken. Thread-safe,
  // as waiting() is.
  [[nodiscard]] bool TryPost(std::function<void()> task);
  size_t waiting() const;  // without the one that runs

 private:
  void Run();

  const size_t waiting_max_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool closing_ = false;
  std::thread thread_;  // guarded by mutex_ until it runs; last: uses all of the above
};

}  // namespace engram
