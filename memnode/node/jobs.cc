#include "memnode/node/jobs.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "memnode/node/random_name.h"

namespace engram::memnode {

void JobContext::Tell(uint64_t done, uint64_t total, uint64_t bytes) {
  done_ = done;
  total_ = total;
  bytes_ = bytes;
}

Jobs::Jobs() : instance_(RandomName()) {}

Jobs::~Jobs() {
  std::list<std::unique_ptr<Job>> jobs;
  {
    const std::lock_guard lock(mutex_);
    jobs.swap(jobs_);
    for (const auto& job : jobs) job->context.cancelled_ = true;
  }
  for (const auto& job : jobs) job->thread.join();
}

Status Jobs::CheckFree(const std::string& title, const std::vector<std::string>& subjects) const {
  const std::lock_guard lock(mutex_);
  return CheckFreeLocked(title, subjects);
}

Status Jobs::CheckFreeLocked(const std::string& title,
                             const std::vector<std::string>& subjects) const {
  for (const auto& job : jobs_) {
    if (job->ended) continue;
    if (std::ranges::find_first_of(job->subjects, subjects) == job->subjects.end()) continue;
    return FailedPrecondition(
        fmt::format("cannot {} now: the job \"{}\" is under way", title, job->title));
  }
  return OkStatus();
}

Result<std::string> Jobs::Start(const std::string& key, const std::string& title,
                                const std::vector<std::string>& subjects, Work work) {
  const std::lock_guard lock(mutex_);
  size_t running = 0;
  for (const auto& job : jobs_) {
    if (job->ended) continue;
    ++running;
    if (job->key == key) return job->name;
  }
  RETURN_IF_ERROR(CheckFreeLocked(title, subjects));
  if (running >= kRunningMax) {
    return ResourceExhausted(fmt::format("{} jobs are running here, at most {} may: wait for one",
                                         running, kRunningMax));
  }
  for (auto it = jobs_.begin(); jobs_.size() - running >= kKeptMax && it != jobs_.end();) {
    if (!(*it)->ended) {
      ++it;
      continue;
    }
    (*it)->thread.join();
    it = jobs_.erase(it);
  }
  Job& job = *jobs_.emplace_back(std::make_unique<Job>());
  job.name = instance_ + "-" + RandomName();
  job.key = key;
  job.title = title;
  job.subjects = subjects;
  Result<std::thread> started =
      StartThread("job", [this, &job, work = std::move(work)] { Run(job, work); });
  if (!started.ok()) {
    jobs_.pop_back();
    return started.status().WithContext(title);
  }
  job.thread = *std::move(started);
  return job.name;
}

void Jobs::Run(Job& job, const Work& work) {
  obs::LogInfo(fmt::format("job begins: {}", job.title));
  Result<json::object> result = work(job.context);
  obs::LogInfo(fmt::format("job ended: {} {}", job.title,
                           result.ok() ? "well" : "why=" + result.status().message()));
  const std::lock_guard lock(mutex_);
  job.ended = true;
  job.status = result.status();
  if (result.ok()) job.result = std::move(*result);
}

// mutex_ is held.
Result<Jobs::Job*> Jobs::Find(const std::string& name) const {
  const auto found =
      std::ranges::find_if(jobs_, [&](const auto& job) { return job->name == name; });
  if (found != jobs_.end()) return found->get();
  const std::string_view instance = std::string_view(name).substr(0, instance_.size() + 1);
  if (instance.size() <= instance_.size() || !instance.ends_with('-') ||
      instance.starts_with(instance_)) {
    return NotFound(
        fmt::format("no job {:.80} here, or it ended before the last {}", name, kKeptMax));
  }
  return NotFound(fmt::format(
      "no job {:.80} here: it began before this node was started again, and ended with it; run the "
      "same command again, an import goes on where it was",
      name));
}

std::string Jobs::FirstRunning() const {
  const std::lock_guard lock(mutex_);
  const auto running = std::ranges::find(jobs_, false, [](const auto& job) { return job->ended; });
  return running == jobs_.end() ? "" : (*running)->title;
}

Result<json::object> Jobs::Look(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const Job* found, Find(name));
  const Job& job = *found;
  json::object seen = {{"title", job.title},
                       {"state", !job.ended        ? "running"
                                 : job.status.ok() ? "done"
                                                   : "failed"},
                       {"done", job.context.done_.load()},
                       {"total", job.context.total_.load()},
                       {"bytes", job.context.bytes_.load()}};
  if (job.ended && job.status.ok()) seen["result"] = job.result;
  if (job.ended && !job.status.ok()) {
    seen["error"] = json::object{{"code", static_cast<int>(job.status.code())},
                                 {"message", job.status.message()}};
  }
  return seen;
}

Status Jobs::Cancel(const std::string& name) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(Job* const job, Find(name));
  job->context.cancelled_ = true;
  return OkStatus();
}

}  // namespace engram::memnode
