// Real nodes whose member list changes while they are read: members come and go, rows get more and
// fewer owners, and tools die in the middle; no lookup fails and no row is wrong.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "common/io/json.h"
#include "tests/memnode/cluster/etcd_server.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Optional;
using testing_support::Binary;
using testing_support::Cluster;
using testing_support::Eventually;
using testing_support::Finished;
using testing_support::Process;
using testing_support::ReadFile;

class ChangingCluster : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("changing_cluster");
    model_ = testing_support::MakeModel(work_dir_, "tiny", "paper", 7);
  }
  void TearDown() override {
    if (!HasFailure()) std::filesystem::remove_all(work_dir_);
  }

  void Start(int count, std::vector<std::string> settings = {}) {
    cluster_ = std::make_unique<Cluster>(work_dir_, model_, count, std::move(settings));
  }
  // Runs engramctl with --nodes of m0, which tells where the others are, or of all.
  Finished Tool(std::vector<std::string> argv, bool name_all = true) const {
    argv.insert(argv.begin(), Binary("engramctl"));
    argv.push_back("--nodes");
    argv.push_back(name_all ? cluster_->memnodes() : cluster_->control(1));
    return testing_support::RunToEnd(std::move(argv), work_dir_);
  }
  void Change(std::vector<std::string> argv, uint32_t epoch) const {
    const std::string what = argv[0];
    const Finished run = Tool(std::move(argv));
    EXPECT_EQ(run.exit_code, 0) << run.err;
    EXPECT_THAT(run.out, HasSubstr(fmt::format("epoch {} is in force", epoch))) << what;
  }
  std::vector<std::string> Add(size_t node) const {
    return {"add", fmt::format("m{}", node), "--address", cluster_->control(node)};
  }
  std::unique_ptr<Process> Load() const {
    return std::make_unique<Process>(
        "load",
        std::vector<std::string>{Binary("engram-load"), "--model", model_, "--memnodes",
                                 cluster_->memnodes(), "--seconds", "150", "--rate", "200",
                                 "--json", report(), "--set", "lookup.path=gather"},
        work_dir_);
  }
  std::string report() const { return work_dir_ + "/load.json"; }
  void ExpectNothingFailed(Process& load) const {
    load.Signal(SIGINT);
    // 3: the machine was too busy for latencies.
    ASSERT_THAT(load.WaitExit(20s), AnyOf(Optional(0), Optional(3))) << load.Stderr();
    const json::object figures = json::parse(ReadFile(report())).as_object();
    EXPECT_EQ(figures.at("errors").to_number<uint64_t>(), 0u) << json::serialize(figures);
    EXPECT_EQ(figures.at("wrong_rows").to_number<uint64_t>(), 0u);
    EXPECT_GT(figures.at("verified_rows").to_number<uint64_t>(), 0u);
  }
  std::string Generate(const std::string& memnodes) const {
    const Finished run = testing_support::RunToEnd(
        {Binary("engram-compute"), "generate", "--model", model_, "--prompt", "Once upon",
         "--max-tokens", "12", "--ignore-eos", "--memnodes", memnodes},
        work_dir_);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return run.out;
  }

  std::string work_dir_;
  std::string model_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(ChangingCluster, NoLookupFailsWhileMembersComeAndGo) {
  Start(2);
  const std::string text = Generate(cluster_->memnodes());
  const auto load = Load();
  ASSERT_TRUE(cluster_->GoOn({0, 1})) << load->Stderr();
  cluster_->StartJoining();
  Change(Add(2), 2);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  Change({"set-replicas", "2"}, 3);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  // Now any one may die, also the one that was added: it knows what it was told.
  cluster_->node(2).Signal(SIGKILL);
  ASSERT_EQ(cluster_->node(2).WaitExit(5s), 128 + SIGKILL);
  EXPECT_TRUE(cluster_->GoOn({0, 1})) << load->Stderr();
  cluster_->Restart(2);
  EXPECT_TRUE(cluster_->GoOn({2})) << load->Stderr();
  const Finished roll = Tool({"roll"});
  EXPECT_EQ(roll.exit_code, 0) << roll.err;
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  Change({"rebalance", "--weights", "m2=3"}, 4);
  Change({"drain", "m0"}, 5);
  EXPECT_TRUE(cluster_->GoOn({1, 2})) << load->Stderr();
  cluster_->node(0).Signal(SIGTERM);  // it has no clients any more
  EXPECT_EQ(cluster_->node(0).WaitExit(5s), 0);
  EXPECT_TRUE(cluster_->GoOn({1, 2})) << load->Stderr();
  const Finished one = Tool({"set-replicas", "1"}, /*name_all=*/false);
  EXPECT_EQ(one.exit_code, 0) << one.err;
  EXPECT_TRUE(cluster_->GoOn({1, 2})) << load->Stderr();
  ExpectNothingFailed(*load);
  // A client that knows one member finds the others; one that knows a node that has left, too.
  EXPECT_EQ(Generate(cluster_->control(2)), text);
  EXPECT_EQ(Generate(cluster_->control(0) + "," + cluster_->control(1)), text);
}

// For a while each member has its rows by both maps.
TEST_F(ChangingCluster, RowsThatHaveNoRoomMeanwhileAreReadFromTheStore) {
  Start(2, {"--set", "arena.budget_mib=1", "--set", "tiers.cache_mib=0"});
  const auto load = Load();
  ASSERT_TRUE(cluster_->GoOn({0, 1})) << load->Stderr();
  cluster_->StartJoining();
  Change(Add(2), 2);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  Change({"set-replicas", "2"}, 3);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  ExpectNothingFailed(*load);
}

TEST_F(ChangingCluster, ALostMemberIsTakenOutAndComesBack) {
  Start(3, {"--set", "cluster.replicas=2"});
  const auto load = Load();
  ASSERT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  cluster_->node(2).Signal(SIGKILL);
  ASSERT_EQ(cluster_->node(2).WaitExit(5s), 128 + SIGKILL);
  const Finished unknown = Tool({"remove", "m2"});
  EXPECT_EQ(unknown.exit_code, 1) << "where m2 was, no map tells yet";
  EXPECT_THAT(unknown.err, HasSubstr("m2"));
  cluster_->Restart(2);
  Change({"rebalance", "--weights", "m0=2"}, 2);
  cluster_->node(2).Signal(SIGKILL);
  ASSERT_EQ(cluster_->node(2).WaitExit(5s), 128 + SIGKILL);
  EXPECT_EQ(Tool({"drain", "m2"}).exit_code, 1);
  Change({"remove", "m2"}, 3);
  EXPECT_TRUE(cluster_->GoOn({0, 1})) << load->Stderr();
  cluster_->Restart(2);  // with its old store, and settings that have it as a member
  int code = 0;
  EXPECT_THAT(cluster_->Get(2, "/ready", &code), HasSubstr("no member"));
  EXPECT_EQ(code, 503);
  Change(Add(2), 4);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  ExpectNothingFailed(*load);
}

TEST_F(ChangingCluster, AToolThatDiesLeavesAChangeThatIsEndedOrTakenBack) {
  Start(2);
  const std::string text = Generate(cluster_->memnodes());
  cluster_->StartJoining();
  // The change stands still where the node that is added does.
  auto add = std::make_unique<Process>(
      "add",
      std::vector<std::string>{Binary("engramctl"), "add", "m2", "--address", cluster_->control(2),
                               "--nodes", cluster_->memnodes()},
      work_dir_);
  ASSERT_TRUE(Eventually([&] {
    return cluster_->node(2).Stderr().find("the cluster is changed") != std::string::npos;
  }));
  cluster_->node(2).Signal(SIGSTOP);
  add->Signal(SIGKILL);
  ASSERT_EQ(add->WaitExit(5s), 128 + SIGKILL);
  const auto epoch = [&] {
    const json::object status =
        json::parse(Tool({"status", "--json"}, /*name_all=*/false).out).as_object();
    return status.at("members").as_array().at(0).as_object().at("epoch").to_number<int>();
  };
  if (epoch() == 1) {
    const Finished second = Tool({"set-replicas", "2"});
    EXPECT_EQ(second.exit_code, 1);
    EXPECT_THAT(second.err, HasSubstr("under way: add m2"));
    const Finished publish = Tool({"publish", "--name", "tiny", "--version", "1"});
    EXPECT_EQ(publish.exit_code, 1);
    const Finished cancelled = Tool({"cancel"});
    EXPECT_EQ(cancelled.exit_code, 0) << cancelled.err;
  }
  cluster_->node(2).Signal(SIGCONT);
  EXPECT_EQ(Generate(cluster_->memnodes()), text);
  const Finished again = Tool(Add(2));
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(Generate(cluster_->memnodes()), text);
  EXPECT_EQ(Tool({"cancel"}).exit_code, 1) << "nothing is under way";
}

TEST_F(ChangingCluster, VersionsArePublishedBeforeAndAfterAChange) {
  Start(2);
  const std::string text = Generate(cluster_->memnodes());
  const auto publish = [&](const std::string& version) {
    EXPECT_EQ(testing_support::RunToEnd({Binary("engramctl"), "import", "--model", model_,
                                         "--version", version, "--to", cluster_->memnodes()},
                                        work_dir_)
                  .exit_code,
              0);
    const std::string name = std::filesystem::path(model_).filename();
    const Finished run = Tool({"publish", "--name", name, "--version", version});
    EXPECT_EQ(run.exit_code, 0) << run.err;
  };
  publish("2");
  cluster_->StartJoining();
  Change(Add(2), 2);
  publish("3");  // all three import their share by the new list
  const std::string name = std::filesystem::path(model_).filename();
  const Finished back = Tool({"rollback", "--name", name});
  EXPECT_EQ(back.exit_code, 0) << back.err;
  // The one that was added has what it was told, also after a restart.
  for (size_t node = 0; node < 3; ++node) {
    cluster_->node(node).Signal(SIGKILL);
    cluster_->node(node).WaitExit(5s);
    cluster_->Restart(node);
  }
  const Finished versions = Tool({"versions"});
  EXPECT_EQ(versions.exit_code, 0) << versions.err;
  EXPECT_EQ(Generate(cluster_->control(2)), text);
}

TEST_F(ChangingCluster, WhatCannotBeIsRefusedAndChangesNothing) {
  Start(2);
  cluster_->StartJoining();
  struct Case {
    std::vector<std::string> argv;
    std::string says;
  };
  const std::string joining = cluster_->control(2);
  for (const Case& c : std::vector<Case>{
           {{"add", "m1", "--address", cluster_->control(1)}, "a member already"},
           {{"add", "m9", "--address", joining}, "does not call itself m9"},
           {{"add", "m2", "--address", joining, "--weight", "0"}, "--weight"},
           {{"add", "m2", "--address", joining, "--zone", "a"}, "no zones"},
           {{"set-replicas", "3"}, "3 replicas"},
           {{"drain", "m7"}, "no member"},
           {{"remove", "m1"}, "answers"},
           {{"rebalance", "--weights", "m0=0"}, "weight 0"},
           {{"rebalance", "--weights", "m0"}, "NAME=N"},
           {{"cancel"}, "no change"},
       }) {
    const Finished run = Tool(c.argv);
    EXPECT_EQ(run.exit_code, 1) << c.argv[0];
    EXPECT_THAT(run.err, HasSubstr(c.says));
  }
  const Finished plan = Tool({"plan", "add", "m2", "--address", joining});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.out, HasSubstr("are copied"));
  EXPECT_THAT(Tool({"resume"}).out, HasSubstr("epoch 1"));
}

// One keeper for all members: a tool tells one of them, and they end the change by themselves.
TEST_F(ChangingCluster, AnEtcdThatGoesAwayStopsChangesAndNothingElse) {
  if (!memnode::HasEtcd()) GTEST_SKIP() << "etcd is not installed (deploy/install-deps.sh)";
  memnode::EtcdServers etcd(work_dir_, 1);
  etcd.AwaitAnswers(etcd.Config());
  Start(2, {"--set", "cluster.membership=etcd", "--set",
            "etcd.endpoints=" + etcd.Config().endpoints[0]});
  const auto load = Load();
  ASSERT_TRUE(cluster_->GoOn({0, 1})) << load->Stderr();
  cluster_->StartJoining();
  Change(Add(2), 2);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  etcd.Kill(0);
  const Finished refused = Tool({"set-replicas", "2"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("etcd"));
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  const auto status_says = [&](const std::string& text) {
    return Eventually([&] { return Tool({"status"}).out.find(text) != std::string::npos; }, 30s);
  };
  EXPECT_TRUE(status_says("etcd does not answer"));
  etcd.Start(0);
  etcd.AwaitAnswers(etcd.Config());
  EXPECT_TRUE(status_says("nothing needs a person"));
  Change({"set-replicas", "2"}, 3);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  // A member starts by what it knew when it read last.
  etcd.Kill(0);
  cluster_->node(1).Signal(SIGKILL);
  ASSERT_EQ(cluster_->node(1).WaitExit(5s), 128 + SIGKILL);
  cluster_->Restart(1);
  EXPECT_TRUE(cluster_->GoOn({0, 1, 2})) << load->Stderr();
  ExpectNothingFailed(*load);
}

}  // namespace
}  // namespace engram
