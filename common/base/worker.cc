#include "common/base/worker.h"

#include <utility>

#include "common/base/threads.h"

namespace engram {

Worker::Worker(size_t waiting_max) : waiting_max_(waiting_max) {}

void Worker::Stop() {
  std::deque<std::function<void()>> dropped;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    dropped.swap(tasks_);
  }
  changed_.notify_one();
  dropped.clear();
  if (thread_.joinable()) thread_.join();
}

bool Worker::TryPost(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (closing_ || tasks_.size() >= waiting_max_) return false;
    if (!thread_.joinable()) {
      Result<std::thread> started = StartThread("worker", [this] { Run(); });
      if (!started.ok()) return false;
      thread_ = *std::move(started);
    }
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
  return true;
}

size_t Worker::waiting() const {
  const std::lock_guard lock(mutex_);
  return tasks_.size();
}

void Worker::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
    if (closing_) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // releases what it holds before Wait can see it done
    lock.lock();
  }
}

}  // namespace engram
