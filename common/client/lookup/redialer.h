// Tries lost memory nodes again, on a thread of its own: 50 ms after the loss, then in intervals
// that double to 800 ms, each 20 % longer or shorter by chance, so that a node that is ready again
// is noticed within a second, and many clients do not dial it in step.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/base/status.h"

namespace engram::client {

class Redialer {
 public:
  // `rejoin` runs on the redialer's thread, and blocks at most seconds; ok: the node is back.
  Redialer(size_t nodes, std::function<Status(uint32_t node)> rejoin, const Clock& clock);
  ~Redialer();
  // Waits for a rejoin under way; afterwards nothing is rejoined any more, and Lost does nothing.
  void Stop();
  const Status& started() const { return started_; }

  // Any thread; never blocks. A node is told once until its rejoin has succeeded.
  void Lost(uint32_t node);

 private:
  struct Node {
    bool lost = false;
    TimePoint due;
    Nanos interval = Nanos::zero();
  };
  void Run();
  void Schedule(Node& node);

  const std::function<Status(uint32_t)> rejoin_;
  const Clock& clock_;
  std::mutex mutex_;  // guards the next four
  std::condition_variable changed_;
  std::vector<Node> nodes_;
  Rng rng_;
  bool stopping_ = false;
  Status started_;
  std::thread thread_;
};

}  // namespace engram::client
