// Child processes for end-to-end tests: started, watched with deadlines, never left behind.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace engram::testing_support {

class Process {
 public:
  // Runs argv[0] with stdout and stderr going to files in `work_dir` named after `name`.
  Process(std::string name, std::vector<std::string> argv, const std::string& work_dir);
  // SIGKILL and reaped if still running.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int number) const;
  // Exit code (128 + signal when killed), or nothing when it still runs after `limit`.
  std::optional<int> WaitExit(std::chrono::milliseconds limit);
  bool Running();
  // Waits until stdout holds a whole line beginning with `prefix`; returns that line, or "" at the
  // limit or on exit.
  std::string WaitLine(const std::string& prefix, std::chrono::milliseconds limit);
  std::string Stdout() const;
  std::string Stderr() const;

 private:
  std::string stdout_path_;
  std::string stderr_path_;
  pid_t pid_ = -1;
  std::optional<int> exit_code_;
};

struct Finished {
  int exit_code = -1;  // -1: did not end in time and was killed
  std::string out;
  std::string err;
};
Finished RunToEnd(std::vector<std::string> argv, const std::string& work_dir,
                  std::chrono::milliseconds limit = std::chrono::seconds(60));

// The value of key=... in a line of space-separated key=value pairs, or "".
std::string ValueOf(const std::string& line, const std::string& key);

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& content);
// A fresh empty folder below the test's temporary directory.
std::string MakeTempDir(const std::string& name);

}  // namespace engram::testing_support
