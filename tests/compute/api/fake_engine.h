// An engine that answers what a test tells it to, when it is told.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "compute/engine/completion.h"

namespace engram::compute {

class FakeEngine : public CompletionEngine {
 public:
  struct Asked {
    CompletionRequest request;
    UpdateCallback callback;
  };

  Result<uint64_t> Submit(CompletionRequest request, UpdateCallback callback) override {
    const std::lock_guard lock(mutex_);
    if (!refusal.ok()) return refusal;
    const uint64_t id = next_id_++;
    asked_[id] = {std::move(request), std::move(callback)};
    if (script.empty()) {
      changed_.notify_all();
      return id;
    }
    // A script is played at once: its ids, then the end.
    Update update;
    for (const int32_t token : script) update.tokens.push_back({token, -1, {}});
    update.finish = Finish();
    update.finish->reason = reason;
    update.finish->status = failure;
    update.degraded_positions = degraded;
    asked_[id].callback(std::move(update));
    changed_.notify_all();
    return id;
  }
  void Cancel(uint64_t id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(id);
    changed_.notify_all();
  }
  EngineSnapshot Snapshot() const override {
    const std::lock_guard lock(mutex_);
    EngineSnapshot snapshot;
    snapshot.draining = draining_;
    snapshot.memory = memory;
    snapshot.rows.nodes = nodes;
    return snapshot;
  }
  void StartDraining() override {
    const std::lock_guard lock(mutex_);
    draining_ = true;
  }
  void AbortAll() override {}
  int64_t positions_max() const override { return 1000; }

  // Waits for the n-th request (from 1).
  Asked Await(uint64_t id) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_.contains(id); });
    return asked_[id];
  }
  void AwaitCancel(uint64_t id) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return cancelled_.contains(id); });
  }
  static void Tell(const Asked& asked, std::vector<int32_t> tokens,
                   std::optional<FinishReason> end = std::nullopt) {
    Update update;
    for (const int32_t token : tokens) update.tokens.push_back({token, -1, {}});
    if (end) {
      update.finish = Finish();
      update.finish->reason = *end;
    }
    Tell(asked, std::move(update));
  }
  static void Tell(const Asked& asked, Update update) { asked.callback(std::move(update)); }

  // Set before a request comes.
  Status refusal;
  std::vector<int32_t> script;
  FinishReason reason = FinishReason::kStop;
  Status failure;
  int64_t degraded = 0;
  Status memory;
  std::vector<client::SourceStats::Node> nodes;  // as the snapshot tells

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Asked> asked_;
  std::set<uint64_t> cancelled_;
  uint64_t next_id_ = 1;
  bool draining_ = false;
};

}  // namespace engram::compute
