// engramctl status on a real cluster: sound, with a node killed, one stopped, and on bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <set>

#include "common/io/json.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"
#include "tests/support/process.h"

namespace engram::ctl {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing_support::Cluster;
using testing_support::Finished;
using testing_support::Process;

class StatusCommand : public testing::Test {
 protected:
  StatusCommand() : dir_(testing_support::MakeTempDir("status_command")) {}
  ~StatusCommand() override {
    cluster_.reset();
    std::filesystem::remove_all(dir_);
  }
  void StartCluster(int count) {
    const std::string model = testing_support::MakeModel(dir_, "tiny", "paper", 1);
    cluster_ = std::make_unique<Cluster>(dir_, model, count);
  }
  std::vector<std::string> Command(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {testing_support::Binary("engramctl"), "status"});
    return arguments;
  }
  Finished Status(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--timeout", "1"});
    return testing_support::RunToEnd(Command(std::move(arguments)), dir_);
  }
  Finished Status() const { return Status({"--nodes", cluster_->memnodes()}); }
  json::object Json(int exit_code) const {
    const Finished run = Status({"--nodes", cluster_->memnodes(), "--json"});
    EXPECT_EQ(run.exit_code, exit_code) << run.err;
    const auto parsed = io::ParseJson(run.out, "status");
    EXPECT_TRUE(parsed.ok() && parsed->is_object()) << run.out;
    return parsed.ok() ? parsed->as_object() : json::object();
  }
  std::string ErrorOf(const std::vector<std::string>& arguments) const {
    const Finished run = testing_support::RunToEnd(Command(arguments), dir_);
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_EQ(run.out, "");
    EXPECT_EQ(std::ranges::count(run.err, '\n'), 1) << run.err;
    return run.err;
  }

  const std::string dir_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(StatusCommand, ASoundClusterIsHealthyAndLostNodesAreNot) {
  StartCluster(3);
  const Finished sound = Status();
  EXPECT_EQ(sound.exit_code, 0) << sound.out << sound.err;
  EXPECT_EQ(sound.err, "");
  for (const char* member : {"m0", "m1", "m2"}) {
    EXPECT_THAT(sound.out,
                ContainsRegex(std::string(member) + " +serving +1 +[0-9]+ .* 100% +0 +0 +- +0"));
  }
  EXPECT_THAT(sound.out, AllOf(HasSubstr("3 members at "), HasSubstr("nothing needs a person")));
  json::object told = Json(0);
  EXPECT_EQ(told.at("healthy"), true);
  EXPECT_TRUE(told.at("problems").as_array().empty());
  int64_t partitions = 0;
  for (const json::value& member : told.at("members").as_array()) {
    EXPECT_EQ(member.at("state"), "serving");
    EXPECT_EQ(member.at("epoch"), 1);
    EXPECT_EQ(member.at("rows_per_s"), 0.0);
    EXPECT_GE(member.at("rate_seconds").as_double(), 1.0);
    partitions += member.at("partitions").to_number<int64_t>();
  }
  EXPECT_GT(partitions, 0);

  cluster_->node(1).Signal(SIGKILL);
  ASSERT_TRUE(cluster_->node(1).WaitExit(std::chrono::seconds(20)).has_value());
  const Finished lost = Status();
  EXPECT_EQ(lost.exit_code, 1);
  EXPECT_EQ(lost.err, "engramctl: the cluster needs a person: 1 problem\n");
  EXPECT_THAT(lost.out, AllOf(ContainsRegex("m1 +away"), HasSubstr("Connection refused"),
                              HasSubstr("! m1 (" + cluster_->control(1) + ") does not answer")));

  cluster_->node(2).Signal(SIGSTOP);
  told = Json(1);
  cluster_->node(2).Signal(SIGCONT);
  EXPECT_EQ(told.at("healthy"), false);
  EXPECT_EQ(told.at("members").at(0).at("state"), "serving");
  EXPECT_EQ(told.at("members").at(1).at("state"), "away");
  EXPECT_EQ(told.at("members").at(2).at("state"), "away");
  EXPECT_EQ(told.at("members").at(2).at("name"), json::value(cluster_->control(2))) << "m1 or m2";
  EXPECT_EQ(told.at("missing"), json::value({"m1", "m2"}));
  EXPECT_EQ(told.at("problems").as_array().size(), 2u);
  EXPECT_EQ(Json(1).at("members").at(2).at("state"), "serving") << "it goes on";
}

TEST_F(StatusCommand, AWatchShowsWhatChanges) {
  StartCluster(1);
  Process watch("watch",
                Command({"--nodes", cluster_->control(0), "--watch", "0.2", "--timeout", "1"}),
                dir_);
  const auto tables = [&] {
    std::set<size_t> begins;
    const std::string text = watch.Stdout();
    for (size_t at = text.find("1 member at "); at != std::string::npos;
         at = text.find("1 member at ", at + 1)) {
      begins.insert(at);
    }
    return begins.size();
  };
  EXPECT_TRUE(testing_support::Eventually([&] { return tables() >= 3; }));
  EXPECT_THAT(watch.Stdout(), Not(HasSubstr("away")));
  cluster_->node(0).Signal(SIGKILL);
  EXPECT_TRUE(testing_support::Eventually(
      [&] { return watch.Stdout().find("away") != std::string::npos; }));
  EXPECT_TRUE(watch.Running()) << "until it is stopped";
  EXPECT_THAT(watch.Stdout(), Not(HasSubstr("\x1b"))) << "no terminal";
}

TEST_F(StatusCommand, BadInputIsOneClearLine) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("--nodes is required"));
  EXPECT_THAT(ErrorOf({"--nodes", "nowhere"}), HasSubstr("\"nowhere\" is not host:port"));
  for (const char* seconds : {"0", "-1", "nan", "1x", "1e9"}) {
    EXPECT_THAT(ErrorOf({"--nodes", "127.0.0.1:1", "--watch", seconds}),
                HasSubstr("is not a number of seconds from 0.2 to 3600"));
  }
  EXPECT_THAT(ErrorOf({"--nodes", "127.0.0.1:1", "--timeout", "0"}),
              HasSubstr("is not a number of seconds from 0.05 to 60"));
  EXPECT_THAT(ErrorOf({"--nodes", "127.0.0.1:1", "more"}), HasSubstr("more"));
}

}  // namespace
}  // namespace engram::ctl
