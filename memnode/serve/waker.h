// Ends a transport's Wait, from any thread, for as long as the transport lives. Threads that work
// for a data thread, and may outlive it, hold one.
#pragma once

#include <mutex>

#include "common/net/transport.h"

namespace engram::memnode {

class Waker {
 public:
  explicit Waker(net::Transport* transport) : transport_(transport) {}

  void Wake() {
    const std::lock_guard lock(mutex_);
    if (transport_ != nullptr) transport_->WakeUp();
  }
  // Returns when no thread is in Wake.
  void Retire() {
    const std::lock_guard lock(mutex_);
    transport_ = nullptr;
  }

 private:
  std::mutex mutex_;
  net::Transport* transport_;  // guarded by mutex_; null: retired
};

}  // namespace engram::memnode
