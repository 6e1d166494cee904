// engramctl's import, publish, rollback, pin, unpin, drop and versions through the binary, on a
// cluster of two nodes with a secret.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "common/io/json.h"
#include "memnode/node/node.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/process.h"

namespace engram::ctl {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::Finished;
using testing_support::MakeTempDir;

class VersionCommands : public testing::Test {
 protected:
  VersionCommands() : dir_(MakeTempDir("version_commands")), secret_(dir_ + "/secret") {
    testing_support::WriteFile(secret_, "a secret of the cluster");
    std::filesystem::permissions(secret_, std::filesystem::perms::owner_read);
    for (const uint64_t seed : {1, 2, 3}) {
      memnode::TinyCheckpoint checkpoint;
      checkpoint.seed = seed;
      checkpoint.Write(Folder(seed));
    }
    for (const std::string member : {"m0", "m1"}) Start(member);
  }
  ~VersionCommands() override {
    nodes_.clear();
    std::filesystem::remove_all(dir_);
  }
  void Start(const std::string& member, int64_t budget_mib = 0) {
    memnode::NodeConfig config;
    config.node_name = member;
    config.cluster_members = {"m0", "m1"};
    config.store_path = dir_ + "/store-" + member;
    config.control_listen = config.http_listen = "127.0.0.1:0";
    config.limits_drain_timeout_ms = 100;
    config.arena_budget_mib = budget_mib;
    config.tiers_cache_mib = 0;
    config.store_scrub_mib_s = 0;
    config.wire.security.secret_file = secret_;
    auto node = memnode::Node::Start(config);
    CHECK(node.ok()) << node.status().ToString();
    nodes_.push_back(*std::move(node));
  }
  std::string Folder(uint64_t seed) const { return fmt::format("{}/model-{}", dir_, seed); }
  std::string Addresses() const {
    return nodes_[0]->control_address() + "," + nodes_[1]->control_address();
  }
  Finished Engramctl(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), std::string(ENGRAM_BIN_DIR) + "/engramctl");
    return testing_support::RunToEnd(std::move(arguments), dir_);
  }
  // On both nodes.
  Finished Run(const std::string& command, std::vector<std::string> arguments) const {
    const std::string nodes = command == "import" ? "--to" : "--nodes";
    arguments.insert(arguments.begin(), {command, nodes, Addresses(), "--secret-file", secret_});
    return Engramctl(std::move(arguments));
  }
  std::string Must(const std::string& command, std::vector<std::string> arguments) const {
    const Finished run = Run(command, std::move(arguments));
    EXPECT_EQ(run.exit_code, 0) << command << ": " << run.err;
    return run.out;
  }
  static std::string ErrorOf(const Finished& run) {
    EXPECT_EQ(run.exit_code, 1) << run.out;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    return run.err;
  }
  void Import(const std::string& version) const {
    Must("import", {"--model", Folder(std::stoull(version)), "--name", "tiny", "--version", version,
                    "--threads", "1", "--memory-mib", "64"});
  }

  const std::string dir_;
  const std::string secret_;
  std::vector<std::unique_ptr<memnode::Node>> nodes_;
};

TEST_F(VersionCommands, TheLifeOfTwoVersions) {
  Import("1");
  Import("2");
  EXPECT_THAT(Must("versions", {}), AllOf(HasSubstr("stored"), Not(HasSubstr("published"))));
  EXPECT_THAT(ErrorOf(Run("rollback", {"--name", "tiny"})), HasSubstr("no version of tiny is"));
  EXPECT_THAT(Must("publish", {"--name", "tiny", "--version", "1"}),
              HasSubstr("version 1 of tiny is published on 2 nodes (generation 1)"));
  EXPECT_THAT(ErrorOf(Run("rollback", {"--name", "tiny"})), HasSubstr("before version 1"));
  Must("publish", {"--name", "tiny", "--version", "2"});
  EXPECT_THAT(Must("rollback", {"--name", "tiny"}),
              HasSubstr("version 1 of tiny is published on 2 nodes (generation 3)"));
  EXPECT_THAT(Must("versions", {}),
              AllOf(HasSubstr("published (3), in memory"), HasSubstr("stored, rolled back")));
  EXPECT_THAT(ErrorOf(Run("drop", {"--name", "tiny", "--version", "1"})),
              HasSubstr("it is published"));
  Must("pin", {"--name", "tiny", "--version", "2"});
  EXPECT_THAT(Must("versions", {}), HasSubstr("stored, pinned, rolled back, in memory"));
  EXPECT_THAT(ErrorOf(Run("drop", {"--name", "tiny", "--version", "2"})),
              HasSubstr("it is pinned"));
  Must("unpin", {"--name", "tiny", "--version", "2"});
  Must("drop", {"--name", "tiny", "--version", "2"});
  EXPECT_THAT(ErrorOf(Run("drop", {"--name", "tiny", "--version", "2"})),
              HasSubstr("there is no version 2 of tiny on any node"));
  EXPECT_THAT(ErrorOf(Run("publish", {"--name", "tiny", "--version", "2"})),
              AllOf(HasSubstr("is not complete"), HasSubstr("nothing was changed")));
  nodes_.clear();
  const Finished offline = Engramctl({"versions", "--store", dir_ + "/store-m0"});
  EXPECT_EQ(offline.exit_code, 0) << offline.err;
  EXPECT_THAT(offline.out, HasSubstr("published (3)"));
}

TEST_F(VersionCommands, RollingBackTwiceLeadsTwoVersionsBack) {
  for (const std::string version : {"1", "2", "3"}) {
    Import(version);
    Must("publish", {"--name", "tiny", "--version", version});
  }
  EXPECT_THAT(Must("rollback", {"--name", "tiny"}), HasSubstr("version 2 of tiny"));
  nodes_.clear();
  for (const std::string member : {"m0", "m1"}) Start(member);  // remembered
  EXPECT_THAT(Must("rollback", {"--name", "tiny"}), HasSubstr("version 1 of tiny"));
  EXPECT_THAT(ErrorOf(Run("rollback", {"--name", "tiny"})), HasSubstr("rolled back from"));
  Must("publish", {"--name", "tiny", "--version", "3"});
  EXPECT_THAT(Must("rollback", {"--name", "tiny"}), HasSubstr("version 1 of tiny"))
      << "2 was rolled back from and not published since";
}

TEST_F(VersionCommands, ListsWhatEachVersionTakesOnDisk) {
  Import("1");
  const auto rows = json::parse(Must("versions", {"--json"})).as_array();
  ASSERT_EQ(rows.size(), 2u);
  for (const json::value& node : rows) {
    const auto& version = node.at("versions").at(0);
    const uint64_t bytes = std::stoull(std::string(version.at("stored_bytes").as_string()));
    const uint64_t held = std::stoull(std::string(version.at("rows_held").as_string()));
    EXPECT_GT(bytes, held * 64) << "rows of 64 bytes";
    EXPECT_LT(bytes, held * 64 * 2 + (64 << 10));
  }
}

// A set of which 36 of 128 partitions are in memory is not called "in memory".
TEST_F(VersionCommands, VersionsSaysHowMuchOfASetIsInMemory) {
  memnode::TinyCheckpoint large;
  large.vocab_size = 30'000;
  large.Write(Folder(1));
  nodes_.clear();
  for (const std::string member : {"m0", "m1"}) Start(member, /*budget_mib=*/1);
  Import("1");
  Must("publish", {"--name", "tiny", "--version", "1"});
  const std::string listed = Must("versions", {});
  EXPECT_THAT(listed, testing::ContainsRegex("published .1., [0-9]+ of [0-9]+ partitions, "
                                             "[0-9.]+ of [0-9.]+ MB in memory"));
  EXPECT_THAT(listed, Not(HasSubstr("published (1), in memory")));
}

TEST_F(VersionCommands, WhatAnswersIsListedAndTheDeadNodeIsNamed) {
  Import("1");
  const std::string both = Addresses();
  const std::string alive = nodes_[0]->control_address(), dead = nodes_[1]->control_address();
  nodes_.pop_back();
  const auto run = [&](const std::string& command, std::vector<std::string> arguments) {
    const std::string nodes = command == "import" ? "--to" : "--nodes";
    arguments.insert(arguments.begin(), {command, nodes, both, "--secret-file", secret_});
    return Engramctl(std::move(arguments));
  };
  const Finished versions = run("versions", {});
  EXPECT_THAT(ErrorOf(versions), AllOf(HasSubstr(dead), Not(HasSubstr(alive))));
  EXPECT_THAT(versions.out, AllOf(HasSubstr(alive), HasSubstr("stored")));
  const Finished as_json = run("versions", {"--json"});
  EXPECT_THAT(ErrorOf(as_json), HasSubstr(dead));
  const json::array told = json::parse(as_json.out).as_array();
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].at("member"), "m0");
  EXPECT_EQ(told[1].at("node").as_string(), dead);
  const Finished verify = run("verify", {});
  EXPECT_THAT(ErrorOf(verify), AllOf(HasSubstr(dead), Not(HasSubstr(alive))));
  EXPECT_THAT(verify.out, HasSubstr(alive));
  const std::vector<std::string> one = {"--name", "tiny", "--version", "1"};
  for (const std::string command : {"publish", "pin", "unpin", "drop", "abort"}) {
    EXPECT_THAT(ErrorOf(run(command, one)), HasSubstr(dead)) << command;
  }
  EXPECT_THAT(ErrorOf(run("rollback", {"--name", "tiny"})), HasSubstr(dead));
  EXPECT_THAT(ErrorOf(run("import", {"--model", Folder(2), "--version", "2"})), HasSubstr(dead));
  nodes_.clear();
  EXPECT_THAT(ErrorOf(run("versions", {})), AllOf(HasSubstr(alive), HasSubstr(dead)));
}

TEST_F(VersionCommands, AStoreFilledOfflineIsPublishedByItsNode) {
  nodes_.clear();
  for (const std::string member : {"m0", "m1"}) {
    const Finished run =
        Engramctl({"import", "--model", Folder(1), "--name", "tiny", "--version", "7", "--to",
                   "store:" + dir_ + "/store-" + member, "--member", member, "--members", "m0,m1"});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_THAT(run.out, HasSubstr("imported tiny version 7"));
  }
  for (const std::string member : {"m0", "m1"}) Start(member);
  Must("publish", {"--name", "tiny", "--version", "7"});
  EXPECT_THAT(Must("versions", {"--json"}), HasSubstr("\"published\":true"));
}

TEST_F(VersionCommands, ADeltaKeepsItsBase) {
  Import("1");
  Must("import", {"--model", Folder(1), "--name", "tiny", "--version", "1b", "--base", "1"});
  EXPECT_THAT(ErrorOf(Run("drop", {"--name", "tiny", "--version", "1"})),
              HasSubstr("version 1b is a delta on it"));
  Must("publish", {"--name", "tiny", "--version", "1b"});
}

TEST_F(VersionCommands, BadInputIsOneClearLine) {
  EXPECT_THAT(ErrorOf(Engramctl({"versions", "--nodes", Addresses()})), HasSubstr("secret"));
  EXPECT_THAT(ErrorOf(Engramctl({"versions", "--nodes", "nowhere"})), HasSubstr("\"nowhere\""));
  EXPECT_THAT(ErrorOf(Engramctl({"versions", "--store", dir_})), HasSubstr("holds no store"));
  EXPECT_THAT(ErrorOf(Engramctl({"publish", "--name", "tiny", "--version", "1", "--secret-file",
                                 secret_, "--nodes", nodes_[0]->control_address()})),
              HasSubstr("name them all"));
  EXPECT_THAT(ErrorOf(Run("import", {"--model", dir_ + "/nothing", "--version", "1"})),
              HasSubstr(dir_ + "/nothing"));
  EXPECT_THAT(ErrorOf(Run("import", {"--model", Folder(1), "--version", "1", "--base", "0"})),
              HasSubstr("0"));
}

}  // namespace
}  // namespace engram::ctl
