#include "common/base/machine_limits.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

namespace engram {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
// Version 1 writes "no limit" as the largest multiple of a page.
constexpr uint64_t kAbsurdBytes = uint64_t{1} << 60;

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (!(file >> number)) return std::nullopt;  // no such file, or "max"
  return number;
}

// The value behind `key` in a file of lines "key value".
std::optional<uint64_t> ReadKey(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string word;
  uint64_t number = 0;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    if (words >> word >> number && word == key) return number;
  }
  return std::nullopt;
}

struct CgroupFolder {
  std::string path;     // as this process sees it, with the test's root before it
  std::string shown;    // without that root
  bool unified = true;  // version 2
};

// The folders of the groups that limit `controller`, this process's own first.
std::vector<CgroupFolder> FoldersOf(const std::string& root, const std::string& controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  std::vector<CgroupFolder> folders;
  std::string line;
  while (std::getline(file, line)) {  // "4:memory:/a/b" or "0::/a/b"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool unified = names == ",,";
    if (!unified && names.find("," + controller + ",") == std::string::npos) continue;
    std::vector<std::string> mounts = {"/sys/fs/cgroup/" + controller};
    if (unified) mounts = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    for (const std::string& mount : mounts) {
      std::filesystem::path group = line.substr(second + 1);
      while (true) {
        const std::string shown = group == "/" ? mount : mount + group.string();
        folders.push_back({root + shown, shown, unified});
        if (group == "/" || group.empty()) break;
        group = group.parent_path();
      }
    }
  }
  return folders;
}

void LimitMemory(const CgroupFolder& group, MachineLimits& limits) {
  const std::string name = group.unified ? "memory.max" : "memory.limit_in_bytes";
  const auto most = ReadNumber(group.path + "/" + name);
  if (!most || *most >= kAbsurdBytes) return;
  const auto used =
      ReadNumber(group.path + (group.unified ? "/memory.current" : "/memory.usage_in_bytes"));
  // Files that were read once: the kernel drops them when the memory is wanted.
  const auto reclaimable =
      ReadKey(group.path + "/memory.stat", group.unified ? "inactive_file" : "total_inactive_file");
  const uint64_t held = used.value_or(0) - std::min(reclaimable.value_or(0), used.value_or(0));
  const uint64_t left = *most - std::min(held, *most);
  if (left >= limits.memory_bytes) return;
  limits.memory_bytes = left;
  limits.memory_source = fmt::format("{} of {}", name, group.shown);
}

void LimitCpus(const CgroupFolder& group, MachineLimits& limits) {
  double quota = 0, period = 0;
  if (group.unified) {
    std::ifstream file(group.path + "/cpu.max");
    if (!(file >> quota >> period)) return;  // "max 100000"
  } else {
    std::ifstream quota_file(group.path + "/cpu.cfs_quota_us");
    std::ifstream period_file(group.path + "/cpu.cfs_period_us");
    if (!(quota_file >> quota && period_file >> period)) return;
  }
  if (quota <= 0 || period <= 0) return;
  limits.cpus = std::min(limits.cpus, std::max(1, static_cast<int>(std::ceil(quota / period))));
}

void LimitTasks(const CgroupFolder& group, MachineLimits& limits) {
  const auto most = ReadNumber(group.path + "/pids.max");
  if (!most || *most >= limits.tasks_max) return;
  limits.tasks_max = *most;
  limits.tasks_used = ReadNumber(group.path + "/pids.current").value_or(0);
  limits.tasks_source = fmt::format("pids.max of {}", group.shown);
}

int CpusOfAffinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

MachineLimits ReadMachineLimits(const std::string& root_path) {
  const std::string root = root_path == "/" ? "" : root_path;
  MachineLimits limits;
  limits.cpus = CpusOfAffinity();
  if (const auto kib = ReadKey(root + "/proc/meminfo", "MemAvailable:")) {
    limits.memory_bytes = *kib * 1024;
    limits.memory_source = "MemAvailable of /proc/meminfo";
  }
  limits.huge_pages_bytes = ReadKey(root + "/proc/meminfo", "HugePages_Free:").value_or(0) *
                            ReadKey(root + "/proc/meminfo", "Hugepagesize:").value_or(0) * 1024;
  for (const CgroupFolder& group : FoldersOf(root, "memory")) LimitMemory(group, limits);
  for (const CgroupFolder& group : FoldersOf(root, "cpu")) LimitCpus(group, limits);
  for (const CgroupFolder& group : FoldersOf(root, "pids")) LimitTasks(group, limits);
  return limits;
}

size_t ThreadsPerCpu(size_t per_cpu) {
  return per_cpu * static_cast<size_t>(ReadMachineLimits().cpus);
}

Status CheckFits(std::span<const MemoryUse> parts, const MachineLimits& limits,
                 const std::string& advice) {
  uint64_t sum = 0;
  std::string list;
  for (const MemoryUse& part : parts) {
    sum += part.bytes;
    if (part.bytes == 0) continue;
    list += fmt::format("{}{} {} MiB", list.empty() ? "" : " + ", part.what, part.bytes / kMib);
  }
  if (sum <= limits.memory_bytes) return OkStatus();
  return ResourceExhausted(
      fmt::format("{} MiB of memory are needed ({}), {} MiB are to be had by {}: {}", sum / kMib,
                  list, limits.memory_bytes / kMib, limits.memory_source, advice));
}

}  // namespace engram
