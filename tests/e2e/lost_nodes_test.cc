// Real nodes with two copies of each row: one after the other is killed, stopped or told to leave,
// under load; no lookup fails, no row is wrong, and an engine's tokens stay the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "common/io/json.h"
#include "tests/support/cluster.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Optional;
using testing_support::Binary;
using testing_support::Cluster;
using testing_support::Process;
using testing_support::ReadFile;

class LostNodes : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("lost_nodes");
    model_ = testing_support::MakeModel(work_dir_, "tiny", "paper", 7);
    cluster_ = std::make_unique<Cluster>(work_dir_, model_, 3,
                                         std::vector<std::string>{"--set", "cluster.replicas=2"});
  }
  void TearDown() override { std::filesystem::remove_all(work_dir_); }

  std::string work_dir_;
  std::string model_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(LostNodes, NoLookupFailsWhateverOneNodeDoes) {
  const std::string report = work_dir_ + "/load.json";
  Process load(
      "load",
      {Binary("engram-load"), "--model", model_, "--memnodes", cluster_->memnodes(), "--seconds",
       "120", "--rate", "300", "--json", report, "--set", "lookup.path=gather"},
      work_dir_);
  ASSERT_TRUE(cluster_->GoOn({0, 1, 2})) << load.Stderr();
  cluster_->node(1).Signal(SIGKILL);
  ASSERT_EQ(cluster_->node(1).WaitExit(5s), 128 + SIGKILL);
  EXPECT_TRUE(cluster_->GoOn({0, 2})) << load.Stderr();
  cluster_->Restart(1);
  EXPECT_TRUE(cluster_->GoOn({1})) << load.Stderr();
  cluster_->node(2).Signal(SIGSTOP);
  EXPECT_TRUE(cluster_->GoOn({0, 1})) << load.Stderr();
  cluster_->node(2).Signal(SIGCONT);
  EXPECT_TRUE(cluster_->GoOn({2})) << load.Stderr();
  cluster_->node(0).Signal(SIGTERM);
  EXPECT_TRUE(cluster_->GoOn({1, 2})) << load.Stderr();
  EXPECT_EQ(cluster_->node(0).WaitExit(20s), 0);
  cluster_->Restart(0);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load.Stderr();
  load.Signal(SIGINT);
  // 3: the machine was too busy for latencies.
  ASSERT_THAT(load.WaitExit(20s), AnyOf(Optional(0), Optional(3))) << load.Stderr();
  const json::object figures = json::parse(ReadFile(report)).as_object();
  EXPECT_EQ(figures.at("errors").to_number<uint64_t>(), 0u) << json::serialize(figures);
  EXPECT_EQ(figures.at("wrong_rows").to_number<uint64_t>(), 0u);
  EXPECT_GT(figures.at("verified_rows").to_number<uint64_t>(), 0u);
  EXPECT_GE(figures.at("reconnects").to_number<uint64_t>(), 2u);
  EXPECT_GT(figures.at("failovers").to_number<uint64_t>() +
                figures.at("hedges_sent").to_number<uint64_t>(),
            0u);
  EXPECT_GE(figures.at("hedges_sent").to_number<uint64_t>(),
            figures.at("hedges_won").to_number<uint64_t>());
  EXPECT_GT(figures.at("worst_stall_us").to_number<double>(), 0);
}

TEST_F(LostNodes, AnEngineStartsWithoutANodeAndSaysTheSame) {
  const auto generate = [&](const std::vector<std::string>& where) {
    std::vector<std::string> argv = {
        Binary("engram-compute"), "generate", "--model",     model_, "--prompt", "Once upon",
        "--max-tokens",           "12",       "--ignore-eos"};
    argv.insert(argv.end(), where.begin(), where.end());
    const testing_support::Finished run = testing_support::RunToEnd(argv, work_dir_);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return run.out;
  };
  const std::string local = generate({"--local"});
  cluster_->node(2).Signal(SIGKILL);
  ASSERT_EQ(cluster_->node(2).WaitExit(5s), 128 + SIGKILL);
  EXPECT_EQ(generate({"--memnodes", cluster_->memnodes()}), local);
  EXPECT_EQ(generate({"--memnodes", cluster_->memnodes(), "--set", "lookup.path=gather"}), local);
  cluster_->node(1).Signal(SIGKILL);
  const testing_support::Finished run = testing_support::RunToEnd(
      {Binary("engram-compute"), "generate", "--model", model_, "--prompt", "x", "--memnodes",
       cluster_->memnodes(), "--set", "connect_timeout_ms=500"},
      work_dir_);
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, AllOf(HasSubstr(cluster_->control(1)), HasSubstr(cluster_->control(2))));
}

}  // namespace
}  // namespace engram
