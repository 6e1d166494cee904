// Rows that came damaged, on their way from the threads that compare checks to the loop, which
// tells their nodes.
//
// Any thread; locked only when a row is damaged, and when there is something to tell.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "common/net/control/control.h"

namespace engram::client {

class DamageReports {
 public:
  static constexpr size_t kWaitingMax = 64;  // more are dropped: the node looks around the first
  struct Report {
    uint32_t node = 0;  // by the map
    net::DamagedRow row;
  };

  void Add(uint32_t node, uint32_t layer_index, uint64_t row) {
    const std::lock_guard lock(mutex_);
    const auto same = [&](const Report& r) {
      return r.row.layer_index == layer_index && r.row.row == row;
    };
    if (waiting_.size() >= kWaitingMax || std::ranges::any_of(waiting_, same)) return;
    waiting_.push_back({node, {layer_index, row}});
    any_.store(true);
  }

  bool any() const { return any_.load(std::memory_order_relaxed); }

  // The oldest, at most `count_max`.
  std::vector<Report> Take(size_t count_max) {
    const std::lock_guard lock(mutex_);
    const auto end =
        waiting_.begin() + static_cast<std::ptrdiff_t>(std::min(count_max, waiting_.size()));
    std::vector<Report> taken(waiting_.begin(), end);
    waiting_.erase(waiting_.begin(), end);
    any_.store(!waiting_.empty());
    return taken;
  }

 private:
  std::atomic<bool> any_ = false;
  std::mutex mutex_;
  std::vector<Report> waiting_;  // guarded by mutex_
};

}  // namespace engram::client
