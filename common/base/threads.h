// Starting threads where the machine may refuse to: a limit that is reached (ulimit -u, pids.max,
// memory for stacks) is an error or fewer threads, never the end of the process. Every thread of
// the product starts here.
#pragma once

#include <cstddef>
#include <functional>
#include <thread>

#include "common/base/status.h"

namespace engram {

// A running thread; `name` is what top and gdb show of it, its first 15 characters.
// RESOURCE_EXHAUSTED names the limits in force.
Result<std::thread> StartThread(const char* name, std::function<void()> body);

// How many threads that stay can be started now, `wanted` at most, so that kThreadsSpared more can
// be started afterwards by others. Tries it with threads that do nothing and end; 0: not even
// these.
constexpr size_t kThreadsSpared = 8;
size_t ThreadsToBeHad(size_t wanted);

struct ThreadsRun {
  size_t count = 0;  // that ran the body, the caller included
  Status shortage;   // why there were not as many as wanted
};
// Runs `body` once on each of `wanted` threads, of which the caller is one; of fewer when no more
// can be started. Returns when all are done. The body shares its work out by itself.
ThreadsRun RunOnThreads(size_t wanted, const char* name, const std::function<void()>& body);

}  // namespace engram
