// Runs tools' long work: each job has a thread of its own, can be asked about after it has ended,
// and can be stopped. Any thread.
//
// A job's name is "<instance>-<random>": the instance is this run of the node's, so that a tool
// which asks after a restart is told so, and never gets another job's success for its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
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
  // What a tool draws its progress bar from; `bytes` were read so far, 0: unknown.
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

  Jobs();
  ~Jobs();  // stops and joins all

  // Of this run of the node.
  const std::string& instance() const { return instance_; }

  // A job of the same `key` that is running already is the one; `title` is shown to people.
  // RESOURCE_EXHAUSTED over kRunningMax; FAILED_PRECONDITION names another job that is running on
  // one of the `subjects`.
  Result<std::string> Start(const std::string& key, const std::string& title,
                            const std::vector<std::string>& subjects, Work work);
  // FAILED_PRECONDITION names a job that is running on one of the subjects.
  Status CheckFree(const std::string& title, const std::vector<std::string>& subjects) const;
  // The title of a job that is running; empty: none is.
  std::string FirstRunning() const;
  // {"title", "state": "running" | "done" | "failed", "done", "total", "bytes", and "result" or
  // "error"}.
  // NOT_FOUND: no such job, or one that ended too long ago or belongs to another run of this node.
  Result<json::object> Look(const std::string& name) const;
  Status Cancel(const std::string& name);

 private:
  struct Job {
    std::string name, key, title;
    std::vector<std::string> subjects;
    JobContext context;
    bool ended = false;
    Status status;
    json::object result;
    std::thread thread;
  };
  void Run(Job& job, const Work& work);
  Status CheckFreeLocked(const std::string& title, const std::vector<std::string>& subjects) const;
  Result<Job*> Find(const std::string& name) const;

  const std::string instance_;
  mutable std::mutex mutex_;
  std::list<std::unique_ptr<Job>> jobs_;  // the oldest first
};

}  // namespace engram::memnode
