// Work that takes longer than an answer may: started by a tool, done on a thread of its own, asked
// about until it has ended, and stoppable. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "common/base/status.h"
#include "common/io/json.h"

namespace engram::memnode {

// What the job's function sees of it.
class JobContext {
 public:
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  // What a tool draws its progress bar from; `done` of `total` in `unit`s.
  void Tell(uint64_t done, uint64_t total);

 private:
  friend class Jobs;
  std::atomic<bool> cancelled_ = false;
  std::atomic<uint64_t> done_ = 0;
  std::atomic<uint64_t> total_ = 0;
};

class Jobs {
 public:
  static constexpr size_t kRunningMax = 4;
  static constexpr size_t kKeptMax = 64;  // ended ones, the oldest go first

  using Work = std::function<Result<json::object>(JobContext& context)>;

  Jobs() = default;
  ~Jobs();  // stops and joins all

  // RESOURCE_EXHAUSTED over kRunningMax. A job of this title that is running already is the one.
  Result<uint64_t> Start(const std::string& title, Work work);
  // {"title", "state": "running" | "done" | "failed", "done", "total", and "result" or "error"}.
  // NOT_FOUND: no such job, or too long ago.
  Result<json::object> Look(uint64_t id) const;
  Status Cancel(uint64_t id);

 private:
  struct Job {
    std::string title;
    JobContext context;
    bool ended = false;
    Status status;
    json::object result;
    std::thread thread;
  };
  void Run(Job& job, const Work& work);

  mutable std::mutex mutex_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, std::unique_ptr<Job>> jobs_;
};

}  // namespace engram::memnode
