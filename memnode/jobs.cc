#include "memnode/jobs.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/obs/log.h"

namespace engram::memnode {

void JobContext::Tell(uint64_t done, uint64_t total, uint64_t bytes) {
  done_ = done;
  total_ = total;
  bytes_ = bytes;
}

Jobs::~Jobs() {
  std::map<uint64_t, std::unique_ptr<Job>> jobs;
  {
    const std::lock_guard lock(mutex_);
    jobs.swap(jobs_);
    for (const auto& [id, job] : jobs) job->context.cancelled_ = true;
  }
  for (const auto& [id, job] : jobs) job->thread.join();
}

Result<uint64_t> Jobs::Start(const std::string& title, const std::vector<std::string>& subjects,
                             Work work) {
  const std::lock_guard lock(mutex_);
  size_t running = 0;
  for (const auto& [id, job] : jobs_) {
    if (job->ended) continue;
    ++running;
    if (job->title == title) return id;
    if (std::ranges::find_first_of(job->subjects, subjects) == job->subjects.end()) continue;
    return FailedPrecondition(
        fmt::format("cannot {} now: the job \"{}\" is under way", title, job->title));
  }
  if (running >= kRunningMax) {
    return ResourceExhausted(fmt::format("{} jobs are running here, at most {} may: wait for one",
                                         running, kRunningMax));
  }
  for (auto it = jobs_.begin(); jobs_.size() - running >= kKeptMax && it != jobs_.end();) {
    if (!it->second->ended) {
      ++it;
      continue;
    }
    it->second->thread.join();
    it = jobs_.erase(it);
  }
  const uint64_t id = next_id_++;
  Job& job = *(jobs_[id] = std::make_unique<Job>());
  job.title = title;
  job.subjects = subjects;
  job.thread = std::thread([this, &job, work = std::move(work)] { Run(job, work); });
  return id;
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

Result<json::object> Jobs::Look(uint64_t id) const {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return NotFound(fmt::format("no job {} here", id));
  const Job& job = *found->second;
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

Status Jobs::Cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return NotFound(fmt::format("no job {} here", id));
  found->second->context.cancelled_ = true;
  return OkStatus();
}

}  // namespace engram::memnode
