// README.md's commands run as written, in order: each block marked `sh`, in one shell, from a
// folder where build/release/bin holds the programs. Ports that the commands name become free ones.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>

#include "tests/support/process.h"

namespace engram {
namespace {

using testing::HasSubstr;
using testing_support::Finished;

constexpr char kReadme[] = ENGRAM_SOURCE_DIR "/README.md";

struct Block {
  std::string info;  // behind the opening fence
  std::string text;
};

std::vector<Block> FencedBlocks(const std::string& markdown) {
  std::vector<Block> blocks;
  bool open = false;
  std::istringstream lines(markdown);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) {
      open = !open;
      if (open) blocks.push_back({line.substr(3), ""});
    } else if (open) {
      blocks.back().text += line + "\n";
    }
  }
  EXPECT_FALSE(open) << "a fence is not closed";
  return blocks;
}

// One that the system gives. The caller closes `fd` once it has all its ports.
std::string FreePort(int* fd) {
  *fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  EXPECT_EQ(::bind(*fd, reinterpret_cast<sockaddr*>(&address), bytes), 0);
  EXPECT_EQ(::getsockname(*fd, reinterpret_cast<sockaddr*>(&address), &bytes), 0);
  return std::to_string(ntohs(address.sin_port));
}

std::string WithFreePorts(const std::string& commands) {
  static const std::regex kAddress(R"((127\.0\.0\.1:)(\d+))");
  std::map<std::string, std::string> ports;  // named -> free
  std::vector<int> held;
  std::string result;
  auto rest = commands.cbegin();
  for (std::sregex_iterator match(commands.begin(), commands.end(), kAddress), end; match != end;
       ++match) {
    std::string& port = ports[(*match)[2]];
    if (port.empty()) port = FreePort(&held.emplace_back(-1));
    result.append(rest, (*match)[0].first).append((*match)[1]).append(port);
    rest = (*match)[0].second;
  }
  for (const int fd : held) ::close(fd);
  return result.append(rest, commands.cend());
}

// mpirun refuses root and more ranks than cores unless told. engram-load refuses latencies (3)
// where other programs made it late; its rows were compared all the same.
constexpr char kPrelude[] = R"(
set -eux -o pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
engram-load() { command engram-load "$@" || [ $? = 3 ]; }
)";

TEST(Readme, EveryCommandRunsAsWritten) {
  std::string commands;
  int run = 0;
  for (const Block& block : FencedBlocks(testing_support::ReadFile(kReadme))) {
    if (block.info == "sh") {
      commands += block.text;
      ++run;
    } else if (block.info == "sh no-test") {
      std::cout << "skipped, README says so:\n" << block.text;
    } else {
      EXPECT_EQ(block.info, "text") << "neither commands nor a picture:\n" << block.text;
    }
  }
  ASSERT_GE(run, 3) << "to serve, to keep tables, to load";

  const std::string work_dir = testing_support::MakeTempDir("readme");
  std::filesystem::create_directories(work_dir + "/build/release");
  std::filesystem::create_directory_symlink(ENGRAM_BIN_DIR, work_dir + "/build/release/bin");
  testing_support::WriteFile(work_dir + "/commands.sh",
                             "cd " + work_dir + "\nexport TMPDIR=" + work_dir + kPrelude +
                                 WithFreePorts(commands) + "echo every command ran\n");
  // `timeout` ends what the shell started in the background, too.
  const Finished finished = testing_support::RunToEnd(
      {"/usr/bin/env", "timeout", "-k", "5", "100", "bash", work_dir + "/commands.sh"}, work_dir,
      std::chrono::seconds(110));
  EXPECT_EQ(finished.exit_code, 0) << finished.out << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("every command ran"));
  std::filesystem::remove_all(work_dir);
}

}  // namespace
}  // namespace engram
