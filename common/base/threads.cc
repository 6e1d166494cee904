#include "common/base/threads.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <system_error>
#include <vector>

#include "common/base/machine_limits.h"

namespace engram {
namespace {

std::string LimitsInForce() {
  rlimit user = {};
  std::string text;
  if (::getrlimit(RLIMIT_NPROC, &user) == 0 && user.rlim_cur != RLIM_INFINITY) {
    text = fmt::format("ulimit -u is {}", user.rlim_cur);
  }
  const MachineLimits limits = ReadMachineLimits();
  if (limits.tasks_max != MachineLimits::kNone) {
    if (!text.empty()) text += ", ";
    text += fmt::format("{} is {} with {} in use", limits.tasks_source, limits.tasks_max,
                        limits.tasks_used);
  }
  return text.empty() ? "no limit of threads is set: memory or kernel.threads-max" : text;
}

}  // namespace

Result<std::thread> StartThread(const char* name, std::function<void()> body) {
  try {
    std::thread thread(std::move(body));
    ::pthread_setname_np(thread.native_handle(), std::string(name).substr(0, 15).c_str());
    return thread;
  } catch (const std::system_error& error) {
    return ResourceExhausted(fmt::format("cannot start a thread for {}: {} ({})", name,
                                         error.code().message(), LimitsInForce()));
  }
}

size_t ThreadsToBeHad(size_t wanted) {
  std::atomic<bool> counted = false;
  std::vector<std::thread> tried;
  while (tried.size() < wanted + kThreadsSpared) {
    Result<std::thread> one = StartThread("probe", [&] { counted.wait(false); });
    if (!one.ok()) break;
    tried.push_back(*std::move(one));
  }
  counted = true;
  counted.notify_all();
  for (std::thread& thread : tried) thread.join();
  return tried.size() - std::min(tried.size(), kThreadsSpared);
}

ThreadsRun RunOnThreads(size_t wanted, const char* name, const std::function<void()>& body) {
  ThreadsRun run = {1, OkStatus()};
  std::vector<std::thread> threads;
  while (run.count < wanted) {
    Result<std::thread> started = StartThread(name, body);
    if (!started.ok()) {
      run.shortage = started.status();
      break;
    }
    threads.push_back(*std::move(started));
    ++run.count;
  }
  body();
  for (std::thread& thread : threads) thread.join();
  return run;
}

}  // namespace engram
