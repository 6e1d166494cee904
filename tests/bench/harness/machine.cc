#include "tests/bench/harness/machine.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace engram::bench {
namespace {

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // set by a signal handler

std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The value behind "key" and a colon in a file of such lines; "" without one.
std::string LineValue(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

uint64_t Kilobytes(const std::string& path, const std::string& key) {
  const std::string value = LineValue(path, key);
  return value.empty() ? 0 : std::strtoull(value.c_str(), nullptr, 10) * 1024;
}

}  // namespace

Status PinThisThread(int cpu) {
  if (cpu < 0) return OkStatus();
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  if (const int error = pthread_setaffinity_np(pthread_self(), sizeof(set), &set); error != 0) {
    return FailedPrecondition(fmt::format("cannot pin a thread to CPU {} of {}: {}", cpu,
                                          std::thread::hardware_concurrency(),
                                          std::strerror(error)));
  }
  return OkStatus();
}

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted.store(true); };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool Interrupted() { return interrupted.load(std::memory_order_relaxed); }

Status CheckMemoryFor(uint64_t bytes, const std::string& what) {
  const uint64_t available = Kilobytes("/proc/meminfo", "MemAvailable");
  const uint64_t spare = Kilobytes("/proc/meminfo", "MemTotal") / 10;
  if (bytes + spare <= available) return OkStatus();
  return ResourceExhausted(
      fmt::format("{} needs {} MiB and {} MiB are to stay free, but {} MiB are available; ask for "
                  "fewer rows",
                  what, bytes >> 20, spare >> 20, available >> 20));
}

uint64_t ResidentBytes(pid_t pid) {
  return Kilobytes(fmt::format("/proc/{}/status", pid), "VmRSS");
}

uint64_t HugePageBytes() {
  return Kilobytes("/proc/self/smaps_rollup", "AnonHugePages") +
         Kilobytes("/proc/self/smaps_rollup", "ShmemPmdMapped");
}

std::string LoadAverage() { return FirstLine("/proc/loadavg"); }

json::object Environment() {
  utsname kernel = {};
  uname(&kernel);
  return {
      {"cpu", LineValue("/proc/cpuinfo", "model name")},
      {"cores", std::thread::hardware_concurrency()},
      {"memory_mib", Kilobytes("/proc/meminfo", "MemTotal") >> 20},
      {"kernel", kernel.release},
      {"compiler", __VERSION__},
#ifdef NDEBUG
      {"build", "optimised"},
#else
      {"build", "debug: figures mean nothing"},
#endif
      {"thp", FirstLine("/sys/kernel/mm/transparent_hugepage/enabled")},
      {"thp_shmem", FirstLine("/sys/kernel/mm/transparent_hugepage/shmem_enabled")},
      {"load_average_before", LoadAverage()},
  };
}

std::string EnvironmentText(const json::object& environment) {
  std::string text;
  for (const auto& [key, value] : environment) {
    text += fmt::format(
        "  {:<20} {}\n", std::string_view(key),
        value.is_string() ? std::string(value.as_string().c_str()) : json::serialize(value));
  }
  return text;
}

Result<int> FreeLoopbackPort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool bound = fd >= 0 &&
                     bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!bound) return Unavailable(fmt::format("no free loopback port: {}", std::strerror(error)));
  return static_cast<int>(ntohs(address.sin_port));
}

std::string FindProgram(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(std::string(path == nullptr ? "" : path) + ":/usr/bin:/usr/sbin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = folder + "/" + name;
    if (!folder.empty() && access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

std::vector<std::string> PinnedCommand(int cpu, std::vector<std::string> argv) {
  if (cpu < 0) return argv;
  argv.insert(argv.begin(), {FindProgram("taskset"), "-c", std::to_string(cpu)});
  return argv;
}

ScratchFolder::ScratchFolder() {
  path_ = (std::filesystem::temp_directory_path() / "engram_bench_XXXXXX").string();
  CHECK(mkdtemp(path_.data()) != nullptr) << path_ << ": " << std::strerror(errno);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace engram::bench
