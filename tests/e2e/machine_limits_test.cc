// What becomes of the programs where the machine gives few threads or little memory.
#include "common/base/machine_limits.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/cluster.h"
#include "tests/support/eventually.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing_support::Binary;
using testing_support::Finished;
using testing_support::Process;
using testing_support::RunToEnd;
using testing_support::ValueOf;

class MachineLimitsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing_support::MakeTempDir("machine_limits");
    std::filesystem::permissions(folder_, std::filesystem::perms::all);
    model_ = testing_support::MakeModel(folder_, "tiny", "paper", 1);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // The command as a user without other processes and with a limit of `threads` threads. Root has
  // no such limit, so that its rights are given up.
  static std::vector<std::string> WithThreads(int threads, std::vector<std::string> command) {
    std::vector<std::string> argv;
    if (::getuid() == 0) {
      const std::string user = std::to_string(100'000 + ::getpid());
      argv = {"/usr/bin/setpriv", "--reuid", user, "--regid", user, "--clear-groups"};
    }
    const std::vector<std::string> limit = {"/usr/bin/prlimit", fmt::format("--nproc={}", threads)};
    argv.insert(argv.end(), limit.begin(), limit.end());
    argv.insert(argv.end(), command.begin(), command.end());
    return argv;
  }

  std::vector<std::string> Node(const std::vector<std::string>& sets) const {
    std::vector<std::string> argv = {Binary("engram-memnode")};
    for (const char* listen : {"control", "http"}) {
      argv.insert(argv.end(), {"--set", fmt::format("{}.listen=127.0.0.1:0", listen)});
    }
    argv.insert(argv.end(), {"--set", "store.path=" + folder_ + "/store"});
    for (const std::string& set : sets) argv.insert(argv.end(), {"--set", set});
    return argv;
  }

  std::string folder_, model_;
};

TEST_F(MachineLimitsTest, AnImportWithMoreThreadsThanThereAreDoesNotEndTheNodeThatServes) {
  Process node("node",
               WithThreads(19, Node({"model.path=" + model_, "model.import_threads=64",
                                     "store.load_threads=64"})),
               folder_);
  const std::string ready = node.WaitLine("ready ", 60s);
  ASSERT_NE(ready, "") << node.Stderr();
  const std::string control = ValueOf(ready, "control");
  std::vector<std::string> import = {Binary("engramctl"), "import", "--model", model_,
                                     "--version",         "2",      "--to",    control,
                                     "--threads",         "64"};
  const Finished imported = RunToEnd(import, folder_);
  EXPECT_EQ(imported.exit_code, 0) << imported.err << imported.out;
  const Finished published = RunToEnd({Binary("engramctl"), "publish", "--name", "tiny-paper-1",
                                       "--version", "2", "--nodes", control},
                                      folder_);
  EXPECT_TRUE(node.Running());
  EXPECT_THAT(node.Stderr(), HasSubstr("fewer threads"));
  EXPECT_THAT(node.Stderr(), HasSubstr("ulimit -u is 19"));
  node.Signal(SIGTERM);
  EXPECT_EQ(node.WaitExit(20s), 0) << node.Stderr();
}

// Each count of threads below what a program needs is an error in one line, above it success.
// A shell runs the command with its streams as `redirections` say.
std::vector<std::string> Shell(const std::vector<std::string>& command,
                               const std::string& redirections) {
  std::string line = "exec ";
  for (const std::string& word : command) line += "'" + word + "' ";
  return {"/bin/sh", "-c", line + redirections};
}

TEST_F(MachineLimitsTest, StandardErrorThatIsClosedOrFullEndsNoProgram) {
  const std::vector<std::string> generate = {
      Binary("engram-compute"), "generate", "--model", model_, "--prompt", "Once",
      "--max-tokens",           "2"};
  const Finished as_it_is = RunToEnd(generate, folder_);
  ASSERT_EQ(as_it_is.exit_code, 0) << as_it_is.err;
  for (const char* streams : {"2>&-", "2>/dev/full", "<&- 2>&-"}) {
    const Finished run = RunToEnd(Shell(generate, streams), folder_);
    EXPECT_EQ(run.exit_code, 0) << streams;
    EXPECT_EQ(run.out, as_it_is.out) << streams;
    for (const char* program : {"engram-memnode", "engram-compute", "engramctl", "engram-load"}) {
      EXPECT_EQ(RunToEnd(Shell({Binary(program), "--no-such-option"}, streams), folder_).exit_code,
                program == std::string("engram-memnode") ? 109 : 1)
          << program << " " << streams;
    }
  }
}

// A file of the store would be standard error otherwise, and log lines would go into it.
TEST_F(MachineLimitsTest, ANodeServesWithAllStandardStreamsClosed) {
  const std::string address = folder_ + "/address";
  Process node("closed", Shell(Node({"model.path=" + model_}), "<&- >" + address + " 2>&-"),
               folder_);
  std::string control;
  ASSERT_TRUE(testing_support::Eventually([&] {
    control = ValueOf(testing_support::ReadFile(address), "control");
    return !control.empty();
  }));
  node.Signal(SIGTERM);
  EXPECT_EQ(node.WaitExit(20s), 0);
  Process blind("blind", Shell(Node({"model.path=" + model_}), "<&- >&- 2>&-"), folder_);
  EXPECT_EQ(blind.WaitExit(2s), std::nullopt) << "it serves";
  blind.Signal(SIGTERM);
  EXPECT_EQ(blind.WaitExit(20s), 0);
}

TEST_F(MachineLimitsTest, OutputThatCannotBeWrittenIsAnErrorNotAnAbort) {
  std::string ids = "1";
  for (int i = 2; i < 700; ++i) ids += "," + std::to_string(i);
  const std::vector<std::vector<std::string>> commands = {
      {Binary("engramctl"), "hash", "--config", model_ + "/config.json", "--ids", ids},
      {Binary("engramctl"), "layout", "--config", model_ + "/config.json"},
      {Binary("engram-compute"), "generate", "--model", model_, "--prompt", "Once", "--max-tokens",
       "2"},
  };
  for (const std::vector<std::string>& command : commands) {
    for (const char* streams : {">/dev/full", ">/dev/full 2>/dev/full"}) {
      const Finished run = RunToEnd(Shell(command, streams), folder_);
      EXPECT_EQ(run.exit_code, 1) << command[1] << " " << streams;
    }
    EXPECT_THAT(RunToEnd(Shell(command, ">/dev/full"), folder_).err,
                HasSubstr("cannot write to standard output"))
        << command[1];
  }
}

// A renamed file would take the place of /dev/null for the whole machine.
TEST_F(MachineLimitsTest, AnOutputThatIsAPipeOrALinkIsWrittenToNotReplaced) {
  std::ofstream(folder_ + "/in.jsonl") << R"({"prompt":"Once","max_tokens":2,"seed":1})"
                                       << "\n";
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const Finished run = RunToEnd(
      {"/bin/sh", "-c",
       fmt::format("cat {0} > {1}/copy & '{2}' batch --model {3} --input {1}/in.jsonl --output {0} "
                   "&& wait",
                   pipe, folder_, Binary("engram-compute"), model_)},
      folder_);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  EXPECT_THAT(testing_support::ReadFile(folder_ + "/copy"), HasSubstr("\"finish_reason\""));
  const std::string link = folder_ + "/link";
  std::filesystem::create_symlink(folder_ + "/target", link);
  const std::vector<std::string> command = {
      Binary("engram-compute"), "batch",    "--model", model_, "--input",
      folder_ + "/in.jsonl",    "--output", link};
  EXPECT_EQ(RunToEnd(command, folder_).exit_code, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_THAT(testing_support::ReadFile(folder_ + "/target"), HasSubstr("\"finish_reason\""));
}

TEST_F(MachineLimitsTest, TooFewThreadsToStartAreAnErrorWhateverTheirNumber) {
  int errors = 0;
  for (int threads = 1; threads <= 9; ++threads) {
    const Finished run = RunToEnd(
        WithThreads(threads, {Binary("engram-compute"), "generate", "--model", model_, "--local",
                              "--prompt", "a", "--max-tokens", "2", "--set", "engine.threads=4"}),
        folder_);
    EXPECT_TRUE(run.exit_code == 0 || run.exit_code == 1)
        << threads << ": " << run.exit_code << " " << run.err;
    if (run.exit_code == 0) continue;
    ++errors;
    EXPECT_THAT(run.err, HasSubstr("cannot start")) << threads;
  }
  EXPECT_GE(errors, 1);
  EXPECT_LE(errors, 3);
  errors = 0;
  for (int threads = 1; threads <= 9; ++threads) {
    Process node("node" + std::to_string(threads),
                 WithThreads(threads, Node({"model.path=" + model_})), folder_);
    if (node.WaitLine("ready ", 60s) != "") {
      node.Signal(SIGTERM);
      EXPECT_EQ(node.WaitExit(20s), 0) << threads << ": " << node.Stderr();
      continue;
    }
    ++errors;
    EXPECT_EQ(node.WaitExit(20s), 1) << threads << ": " << node.Stderr();
    EXPECT_THAT(node.Stderr(), HasSubstr("cannot start")) << threads;
  }
  EXPECT_GE(errors, 3);
}

// A cgroup of this test's own, of either version; absent where this process may make none.
class Cgroup {
 public:
  Cgroup() {
    const std::string name = "/engram-test-" + std::to_string(::getpid());
    for (const auto& [folder, limit] : {std::pair("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                                        std::pair("/sys/fs/cgroup", "memory.max")}) {
      path_ = folder + name;
      std::error_code error;
      if (!std::filesystem::create_directory(path_, error)) continue;
      limit_file_ = path_ + "/" + limit;
      std::ofstream file(limit_file_);
      if (file << (256 << 20) << std::flush) return;
      std::filesystem::remove(path_, error);
    }
    path_.clear();
  }
  ~Cgroup() {
    if (!path_.empty()) ::rmdir(path_.c_str());
  }
  bool made() const { return !path_.empty(); }
  const std::string& path() const { return path_; }
  std::vector<std::string> With(std::vector<std::string> command) const {
    std::vector<std::string> argv = {"/bin/bash", "-c", "echo $$ >$0/cgroup.procs && exec \"$@\"",
                                     path_};
    argv.insert(argv.end(), command.begin(), command.end());
    return argv;
  }

 private:
  std::string path_, limit_file_;
};

TEST_F(MachineLimitsTest, TablesBeyondTheCgroupsMemoryAreRefusedWithTheSum) {
  const Cgroup group;
  if (!group.made()) GTEST_SKIP() << "no memory cgroup can be made here";
  const Finished node = RunToEnd(
      group.With(
          Node({"procedural.layout=v41", "procedural.rows_scale=0.002", "arena.budget_mib=1000"})),
      folder_);
  EXPECT_EQ(node.exit_code, 1) << node.err;
  EXPECT_THAT(node.err, HasSubstr("MiB of memory are needed (rows 39"));
  EXPECT_THAT(node.err, HasSubstr(group.path()));
  EXPECT_THAT(node.err, HasSubstr("set arena.budget_mib"));

  const Finished engine =
      RunToEnd(group.With({Binary("engram-compute"), "generate", "--model", model_, "--local",
                           "--prompt", "a", "--set", "cache.mib=512"}),
               folder_);
  EXPECT_EQ(engine.exit_code, 1) << engine.err;
  EXPECT_THAT(engine.err, HasSubstr("cache.mib 512 MiB"));
  EXPECT_THAT(engine.err, HasSubstr(group.path()));
  const Finished less =
      RunToEnd(group.With({Binary("engram-compute"), "generate", "--model", model_, "--local",
                           "--prompt", "a", "--max-tokens", "2", "--set", "cache.mib=64"}),
               folder_);
  EXPECT_EQ(less.exit_code, 0) << less.err;
  const Finished fitted =
      RunToEnd(group.With({Binary("engram-compute"), "generate", "--model", model_, "--local",
                           "--prompt", "a", "--max-tokens", "2"}),
               folder_);
  EXPECT_EQ(fitted.exit_code, 0) << "by default the cache follows the limit: " << fitted.err;
}

TEST_F(MachineLimitsTest, AnEngineHasAThreadForEachProcessorItMayUse) {
  const auto threads = [&](std::vector<std::string> before) {
    before.insert(before.end(), {Binary("engram-compute"), "generate", "--model", model_, "--local",
                                 "--prompt", "a", "--max-tokens", "1", "--set", "log.level=info"});
    const Finished run = RunToEnd(before, folder_);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    const size_t at = run.err.find(" threads=");
    return at == std::string::npos ? 0 : std::stoi(run.err.substr(at + 9));
  };
  EXPECT_EQ(threads({}), ReadMachineLimits().cpus);
  EXPECT_EQ(threads({"/usr/bin/taskset", "-c", "0"}), 1);
}

}  // namespace
}  // namespace engram
