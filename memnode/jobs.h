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
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"

namespace engram::memnode {

// What the job's function sees of it.
class JobContext {
 public:
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  // What a tool draws its progress bar from; `bytes` were read so far, 0: not told.
  void Tell(uint64_t done, uint64_t total, uint64_t bytes = 0);

 private:
  friend class Jobs;
  std::atomic<bool> cancelled_ = false;
  std::atomic<uint64_t> done_ = 0;
  std::atomic<uint64_t> total_ = 0;
  std::atomic<uint64_t> bytes_ = 0;
};

class Jobs {
 public:
  static constexpr size_t kRunningMax = 4;
  static constexpr size_t kKeptMax = 64;  // ended ones, the oldest go first

  using Work = std::function<Result<json::object>(JobContext& context)>;

  Jobs() = default;
  ~Jobs();  // stops and joins all

  // A job of this title that is running already is the one. RESOURCE_EXHAUSTED over kRunningMax;
  // FAILED_PRECONDITION names another job that is running on one of the `subjects`.
  Result<uint64_t> Start(const std::string& title, const std::vector<std::string>& subjects,
                         Work work);
  // {"title", "state": "running" | "done" | "failed", "done", "total", "bytes", and "result" or
  // "error"}.
  // NOT_FOUND: no such job, or too long ago.
  Result<json::object> Look(uint64_t id) const;
  Status Cancel(uint64_t id);

 private:
  struct Job {
    std::string title;
    std::vector<std::string> subjects;
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
