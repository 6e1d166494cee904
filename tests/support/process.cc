#include "tests/support/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace engram::testing_support {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(5);

int OpenForOutput(const std::string& path) {
  return open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
}

}  // namespace

Process::Process(std::string name, std::vector<std::string> argv, const std::string& work_dir)
    : stdout_path_(work_dir + "/" + name + ".out"), stderr_path_(work_dir + "/" + name + ".err") {
  std::vector<char*> pointers;
  for (std::string& argument : argv) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const int out = OpenForOutput(stdout_path_);
  const int err = OpenForOutput(stderr_path_);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a crashed test leaves no servers behind
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execv(pointers[0], pointers.data());
    std::perror(pointers[0]);
    _exit(127);
  }
  close(out);
  close(err);
}

Process::~Process() {
  if (Running()) {
    Signal(SIGKILL);
    WaitExit(std::chrono::seconds(10));
  }
}

void Process::Signal(int number) const {
  if (pid_ > 0 && !exit_code_) kill(pid_, number);
}

bool Process::Running() { return !WaitExit(std::chrono::milliseconds(0)).has_value(); }

std::optional<int> Process::WaitExit(std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!exit_code_) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else if (std::chrono::steady_clock::now() >= deadline) {
      return std::nullopt;
    } else {
      std::this_thread::sleep_for(kPollInterval);
    }
  }
  return exit_code_;
}

std::string Process::WaitLine(const std::string& prefix, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (true) {
    const bool running = Running();
    std::istringstream lines(Stdout());
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with(prefix) && !lines.eof()) return line;
    }
    if (!running || std::chrono::steady_clock::now() >= deadline) return "";
    std::this_thread::sleep_for(kPollInterval);
  }
}

std::string Process::Stdout() const { return ReadFile(stdout_path_); }
std::string Process::Stderr() const { return ReadFile(stderr_path_); }

Finished RunToEnd(std::vector<std::string> argv, const std::string& work_dir,
                  std::chrono::milliseconds limit) {
  static std::atomic<int> counter{0};
  Process process("run" + std::to_string(counter++), std::move(argv), work_dir);
  const std::optional<int> code = process.WaitExit(limit);
  return {code.value_or(-1), process.Stdout(), process.Stderr()};
}

std::string ValueOf(const std::string& line, const std::string& key) {
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word.starts_with(key + "=")) return word.substr(key.size() + 1);
  }
  return "";
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string MakeTempDir(const std::string& name) {
  const auto base = std::filesystem::temp_directory_path() / ("engram_" + name + "_XXXXXX");
  std::string path = base.string();
  return mkdtemp(path.data()) == nullptr ? "" : path;
}

}  // namespace engram::testing_support
