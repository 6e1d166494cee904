// The fake Collective: ranks are threads of this process. For tests.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "common/base/clock.h"
#include "compute/parallel/collective.h"

namespace engram::parallel {

class ThreadGroup {
 public:
  ThreadGroup(int size, Nanos time_limit);
  ~ThreadGroup();
  // Lives as long as the group.
  Collective& rank(int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  // As if this rank's process had died.
  void Kill(int rank);

 private:
  class Rank;
  struct Part {
    const void* data = nullptr;
    size_t bytes = 0;
  };
  // Shows what this rank brings, waits until all do, and calls `take` with all ranks'. False:
  // failed.
  template <typename Take>
  bool Meet(int rank, Part part, Patience patience, const Take& take);
  bool Await(std::unique_lock<std::mutex>& lock, int rank, Patience patience);

  const int size_;
  const Nanos time_limit_;
  std::vector<std::unique_ptr<Collective>> ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Part> parts_;
  int arrived_ = 0;
  uint64_t round_ = 0;
  Status status_;
};

}  // namespace engram::parallel
