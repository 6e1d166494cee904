#include "common/client/lookup/redialer.h"

#include <algorithm>
#include <utility>

#include "common/base/threads.h"

namespace engram::client {
namespace {

constexpr Nanos kFirst = std::chrono::milliseconds(50);
constexpr Nanos kLongest = std::chrono::milliseconds(800);
constexpr Nanos kClockRecheck =
    std::chrono::milliseconds(20);  // a clock moved by hand is noticed, too

}  // namespace

Redialer::Redialer(size_t nodes, std::function<Status(uint32_t node)> rejoin, const Clock& clock)
    : rejoin_(std::move(rejoin)),
      clock_(clock),
      nodes_(nodes),
      rng_(static_cast<uint64_t>(clock.Now().time_since_epoch().count())) {
  Result<std::thread> started = StartThread("redial", [this] { Run(); });
  started_ = started.status();
  if (started.ok()) thread_ = *std::move(started);
}

Redialer::~Redialer() { Stop(); }

void Redialer::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Redialer::Lost(uint32_t index) {
  const std::lock_guard lock(mutex_);
  Node& node = nodes_[index];
  node.lost = true;
  node.interval = Nanos::zero();
  Schedule(node);
  changed_.notify_all();
}

void Redialer::Schedule(Node& node) {
  node.interval = std::clamp(2 * node.interval, kFirst, kLongest);
  const auto percent = static_cast<int64_t>(80 + rng_.NextBelow(41));
  node.due = clock_.Now() + node.interval / 100 * percent;
}

void Redialer::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto next = std::min_element(
        nodes_.begin(), nodes_.end(),
        [](const Node& a, const Node& b) { return a.lost != b.lost ? a.lost : a.due < b.due; });
    if (next == nodes_.end() || !next->lost) {
      changed_.wait(lock);
      continue;
    }
    const Nanos left = next->due - clock_.Now();
    if (left > Nanos::zero()) {
      changed_.wait_for(lock, std::min(left, kClockRecheck));
      continue;
    }
    next->lost = false;  // Lost may say so again while the node is rejoined
    lock.unlock();
    const Status joined = rejoin_(static_cast<uint32_t>(next - nodes_.begin()));
    lock.lock();
    if (joined.ok() || next->lost) continue;
    next->lost = true;
    Schedule(*next);
  }
}

}  // namespace engram::client
