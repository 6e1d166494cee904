// What this process may use of the machine: processors, memory and tasks, by the machine itself and
// by every cgroup the process is in (version 1 and 2, and those above it).
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "common/base/status.h"

namespace engram {

struct MachineLimits {
  static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();

  int cpus = 1;  // of the affinity mask and cpu.max, rounded up

  // Available now without pushing others out: the least of MemAvailable and, of each cgroup,
  // memory.max less what is in use and cannot be reclaimed.
  uint64_t memory_bytes = kNone;
  uint64_t huge_pages_bytes = 0;  // reserved and free; not in memory_bytes
  std::string memory_source;  // "MemAvailable of /proc/meminfo", "memory.max of /sys/fs/cgroup/a"

  uint64_t tasks_max = kNone;  // threads and processes together
  uint64_t tasks_used = 0;
  std::string tasks_source;  // "pids.max of /sys/fs/cgroup/a"
};

// Reads the files anew at each call. `root` is another folder in tests. Any thread.
MachineLimits ReadMachineLimits(const std::string& root = "/");

// Threads for `per_cpu` a processor, as ReadMachineLimits counts them; at least one.
size_t ThreadsPerCpu(size_t per_cpu);

struct MemoryUse {
  std::string what;  // "rows", "cache.mib"
  uint64_t bytes = 0;
};
// RESOURCE_EXHAUSTED when the parts together exceed what there is: gives the sum, each part,
// the limit and where it is set, and ends with `advice`.
Status CheckFits(std::span<const MemoryUse> parts, const MachineLimits& limits,
                 const std::string& advice);

}  // namespace engram
