#include "memnode/load/environment.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/utsname.h>

#include <ctime>
#include <fstream>
#include <utility>

namespace engram::memnode::load {
namespace {

std::string FirstLine(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// What follows the colon on the first line that starts with `key`.
std::string ValueOf(const char* path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t value =
        colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

std::string OrUnknown(const std::string& text) { return text.empty() ? "?" : text; }

}  // namespace

std::string ReadLoadAverage() {
  const std::string line = FirstLine("/proc/loadavg");
  size_t end = 0;
  for (int i = 0; i < 3 && end != std::string::npos; ++i) end = line.find(' ', end + 1);
  return OrUnknown(line.substr(0, end));
}

Environment ReadEnvironment(std::string command_line) {
  Environment environment;
  utsname name{};
  if (uname(&name) == 0) environment.kernel = fmt::format("{} {}", name.sysname, name.release);
  environment.cpu_model = OrUnknown(ValueOf("/proc/cpuinfo", "model name"));
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) environment.cores = CPU_COUNT(&cpus);
  environment.transparent_huge_pages =
      OrUnknown(FirstLine("/sys/kernel/mm/transparent_hugepage/enabled"));
  environment.huge_pages_reserved = std::atoll(ValueOf("/proc/meminfo", "HugePages_Total").c_str());
  environment.load_average = ReadLoadAverage();
  environment.build = fmt::format("{}, gcc-compatible {}", ENGRAM_BUILD_TYPE, __VERSION__);
#if defined(__SANITIZE_ADDRESS__)
  environment.build += ", AddressSanitizer";
#elif defined(__SANITIZE_THREAD__)
  environment.build += ", ThreadSanitizer";
#endif
  environment.version = ENGRAM_VERSION;
  environment.command_line = std::move(command_line);
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  environment.started_utc = text;
  return environment;
}

}  // namespace engram::memnode::load
