// What an operator sees when a memory node dies, stops or is told to leave.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "tests/support/cluster.h"
#include "tests/support/eventually.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing_support::Binary;
using testing_support::Cluster;
using testing_support::Process;

class Failure : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("failure");
    model_ = testing_support::MakeModel(work_dir_, "tiny", "paper", 7);
  }
  void TearDown() override { std::filesystem::remove_all(work_dir_); }

  // A score run that cannot end by itself within the test: the same long line again and again. Its
  // rows come from the nodes: out of mapped memory it would not notice that one is stopped.
  std::unique_ptr<Process> StartLongRun(const Cluster& cluster) {
    std::string line = "{\"tokens\":[1";
    for (int i = 0; i < 400; ++i) line += "," + std::to_string((i * 7919) % 500);
    line += "]}\n";
    std::string input;
    for (int i = 0; i < 2000; ++i) input += line;
    testing_support::WriteFile(work_dir_ + "/long.jsonl", input);
    return std::make_unique<Process>(
        "long",
        std::vector<std::string>{Binary("engram-compute"), "score", "--model", model_, "--memnodes",
                                 cluster.memnodes(), "--input", work_dir_ + "/long.jsonl",
                                 "--output", work_dir_ + "/long.out.jsonl", "--set",
                                 "engine.deadline_ms=1000", "--set", "lookup.path=gather"},
        work_dir_);
  }

  // Until node i has served rows.
  static bool WaitServing(const Cluster& cluster, size_t i) {
    return testing_support::Eventually([&] {
      int code = 0;
      const std::string text = cluster.Get(i, "/metrics", &code);
      const size_t at = text.find("\nengram_memnode_requests_total");
      return at != std::string::npos && text.substr(text.find(' ', at) + 1, 2) != "0\n";
    });
  }

  std::string work_dir_;
  std::string model_;
};

TEST_F(Failure, KilledNodeEndsTheRequestWithAClearErrorInBoundedTime) {
  Cluster cluster(work_dir_, model_, 2);
  const auto run = StartLongRun(cluster);
  ASSERT_TRUE(WaitServing(cluster, 1)) << run->Stderr();
  ASSERT_TRUE(run->Running());
  cluster.node(1).Signal(SIGKILL);
  EXPECT_EQ(run->WaitExit(5s), 1) << run->Stderr();
  EXPECT_THAT(run->Stderr(), HasSubstr("m1"));
  EXPECT_THAT(run->Stderr(), HasSubstr(cluster.control(1)));
  EXPECT_FALSE(std::filesystem::exists(work_dir_ + "/long.out.jsonl"))
      << "no partial result is left";
  EXPECT_TRUE(cluster.node(0).Running());
}

TEST_F(Failure, StoppedNodeIsReportedAtTheDeadline) {
  Cluster cluster(work_dir_, model_, 2);
  const auto run = StartLongRun(cluster);
  ASSERT_TRUE(WaitServing(cluster, 1)) << run->Stderr();
  cluster.node(1).Signal(SIGSTOP);
  EXPECT_EQ(run->WaitExit(8s), 1) << run->Stderr();
  EXPECT_THAT(run->Stderr(), HasSubstr("m1"));
  cluster.node(1).Signal(SIGCONT);
}

TEST_F(Failure, DyingClientLeavesTheNodesServingOthers) {
  Cluster cluster(work_dir_, model_, 2);
  const auto first = StartLongRun(cluster);
  ASSERT_TRUE(WaitServing(cluster, 0));
  first->Signal(SIGKILL);
  ASSERT_TRUE(first->WaitExit(5s).has_value());
  const testing_support::Finished second = testing_support::RunToEnd(
      {Binary("engram-compute"), "generate", "--model", model_, "--memnodes", cluster.memnodes(),
       "--prompt", "hello there", "--max-tokens", "4"},
      work_dir_);
  EXPECT_EQ(second.exit_code, 0) << second.err;
  EXPECT_TRUE(cluster.node(0).Running());
  EXPECT_TRUE(cluster.node(1).Running());
}

TEST_F(Failure, SigtermDrainsAndExitsCleanly) {
  Cluster cluster(work_dir_, model_, 1);
  int code = 0;
  cluster.Get(0, "/ready", &code);
  EXPECT_EQ(code, 200);
  cluster.Get(0, "/health", &code);
  EXPECT_EQ(code, 200);
  cluster.node(0).Signal(SIGTERM);
  EXPECT_EQ(cluster.node(0).WaitExit(10s), 0) << cluster.node(0).Stderr();
}

}  // namespace
}  // namespace engram
