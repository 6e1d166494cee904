// The machine a benchmark runs on: what it is, which core a thread has, how much memory is left,
// and whether Ctrl-C was pressed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"

namespace engram::bench {

// Which core serves and which one asks.
struct Cores {
  int server = 0;
  int client = 1;
};

// -1: not pinned. FAILED_PRECONDITION when the machine has no such core.
Status PinThisThread(int cpu);

// From here on SIGINT and SIGTERM set Interrupted() instead of ending the program, so that servers
// are stopped and folders removed.
void CatchInterrupts();
bool Interrupted();

// RESOURCE_EXHAUSTED when `bytes` plus a tenth of the machine's memory is not to be had.
Status CheckMemoryFor(uint64_t bytes, const std::string& what);
// Resident bytes of a process, 0 when it is gone.
uint64_t ResidentBytes(pid_t pid);
// Bytes of this process that the kernel really put into transparent huge pages.
uint64_t HugePageBytes();

// CPU, kernel, compiler, page settings, load average, commit: printed with every table.
json::object Environment();
std::string EnvironmentText(const json::object& environment);
std::string LoadAverage();

// A port that was free a moment ago.
Result<int> FreeLoopbackPort();

// Where an executable lies on PATH or in the usual places; "" where it is not installed.
std::string FindProgram(const std::string& name);

// The command line that runs `argv` on one core; -1: on any.
std::vector<std::string> PinnedCommand(int cpu, std::vector<std::string> argv);

// An empty folder, removed with everything in it at the end.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace engram::bench
