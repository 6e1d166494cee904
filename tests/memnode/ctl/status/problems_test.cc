// Each thing that can be wrong is told once, with its member and what to do; a sound cluster has no
// problem.
#include "memnode/ctl/status/problems.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/memnode/ctl/status/replies.h"

namespace engram::ctl {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::vector<Problem> Found(const std::vector<json::object>& replies) {
  return FindProblems(ViewCluster(AnswersOf(replies)));
}
// The only one there is.
Problem Only(const std::vector<Problem>& found) {
  EXPECT_EQ(found.size(), 1u);
  for (const Problem& problem : found) {
    if (found.size() > 1) ADD_FAILURE() << problem.kind << ": " << problem.what;
  }
  return found.empty() ? Problem() : found.front();
}
// With one key of m1's reply set.
Problem With(const char* key, json::value value) {
  std::vector<json::object> replies = SoundReplies();
  replies[1][key] = std::move(value);
  return Only(Found(replies));
}
json::value VersionWith(const std::string& version, uint64_t generation,
                        const std::vector<std::pair<const char*, json::value>>& changes) {
  json::object v = VersionReply(version, generation);
  for (const auto& [key, value] : changes) v[key] = value;
  return v;
}
const std::vector<std::string> kM1 = {"m1"};

TEST(Problems, ASoundClusterHasNone) { EXPECT_THAT(Found(SoundReplies()), IsEmpty()); }

TEST(Problems, AMemberThatDoesNotAnswerIsToldWithTheDialsWords) {
  std::vector<Answer> answers = AnswersOf({SoundReply("m0"), SoundReply("m2")});
  answers.push_back(NoAnswer("host:9", Unavailable("connect: Connection refused")));
  const Problem problem = Only(FindProblems(ViewCluster(answers)));
  EXPECT_EQ(problem.kind, "unreachable");
  EXPECT_EQ(problem.members, kM1);
  EXPECT_EQ(problem.what, "m1 (host:9) does not answer: connect: Connection refused");
  EXPECT_THAT(problem.remedy, HasSubstr("start it again"));
  EXPECT_TRUE(problem.needs_person);
}

TEST(Problems, SilentAddressesMayBeAnyOfTheMissing) {
  std::vector<Answer> answers = AnswersOf({SoundReply("m0")});
  for (const char* address : {"host:8", "host:9"}) {
    answers.push_back(NoAnswer(address, DeadlineExceeded("no answer in time")));
  }
  const auto found = FindProblems(ViewCluster(answers));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].what, "host:8 (perhaps one of m1, m2) does not answer: no answer in time");
  answers.clear();
  answers.push_back(NoAnswer("host:8", DeadlineExceeded("no answer in time")));
  EXPECT_EQ(Only(FindProblems(ViewCluster(answers))).what,
            "host:8 does not answer: no answer in time");
}

TEST(Problems, AnAnswerThatIsNoStatusIsTold) {
  std::vector<Answer> answers = AnswersOf({SoundReply("m0"), SoundReply("m2")});
  answers.push_back(NoAnswer("host:9", InvalidArgument("status: no \"member\"")));
  const Problem problem = Only(FindProblems(ViewCluster(answers)));
  EXPECT_EQ(problem.kind, "no_status");
  EXPECT_EQ(problem.what, "m1 (host:9) answers, but not with a status: status: no \"member\"");
}

TEST(Problems, OneNodeNamedTwiceAndTwoNodesOfOneNameAreToldApart) {
  std::vector<json::object> replies = SoundReplies();
  replies.push_back(SoundReply("m1"));
  Problem problem = Only(Found(replies));
  EXPECT_EQ(problem.kind, "named_twice");
  EXPECT_EQ(problem.what, "host:1 and host:3 are the same node, m1");
  replies.back()["run"] = "another";
  problem = Only(Found(replies));
  EXPECT_EQ(problem.what, "two nodes, at host:1 and host:3, both say that they are m1");
}

TEST(Problems, AMemberThatTheOthersDoNotListIsTold) {
  std::vector<json::object> replies = SoundReplies();
  replies.push_back(SoundReply("m3"));
  replies.back()["members"] = {"m0", "m1", "m2", "m3"};
  const Problem problem = Only(Found(replies));
  EXPECT_EQ(problem.kind, "not_listed");
  EXPECT_EQ(problem.members, (std::vector<std::string>{"m3"}));
  EXPECT_EQ(problem.what, "m3 (host:3) is not in the member list of m0, m1, m2");
}

TEST(Problems, AMemberThatWasNotAskedIsTold) {
  const Problem problem = Only(Found({SoundReply("m0"), SoundReply("m2")}));
  EXPECT_EQ(problem.kind, "not_asked");
  EXPECT_EQ(problem.members, kM1);
  EXPECT_EQ(problem.what, "m1 of the cluster's member list is not among --nodes");
  std::vector<Answer> answers = AnswersOf({SoundReply("m0")});
  answers.push_back(NoAnswer("host:9", Unavailable("connect: refused")));
  const auto found = FindProblems(ViewCluster(answers));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[1].what,
            "at least 1 of m1, m2 of the cluster's member list is not among --nodes");
}

TEST(Problems, DifferentEpochsAndListsAreTold) {
  Problem problem = With("epoch", 4);
  EXPECT_EQ(problem.kind, "epoch_differs");
  EXPECT_EQ(problem.what, "members disagree on the epoch: 3 on m0, m2; 4 on m1");
  problem = With("members", {"m0", "m2", "m1"});
  EXPECT_EQ(problem.kind, "list_differs");
  EXPECT_EQ(problem.what,
            "members disagree on the member list: [m0, m1, m2] on m0, m2; [m0, m2, m1] on m1");
}

TEST(Problems, AMemberBehindIsTold) {
  std::vector<json::object> replies = SoundReplies();
  for (const size_t i : {0, 2}) replies[i]["versions"] = json::array{VersionReply("2", 2)};
  Problem problem = Only(Found(replies));
  EXPECT_EQ(problem.kind, "behind");
  EXPECT_EQ(problem.members, kM1);
  EXPECT_EQ(problem.what,
            "m1 publishes version 1 of v41 (generation 1); the newest is version 2 (generation 2)");
  EXPECT_EQ(problem.remedy,
            "import the version there, then engramctl publish --name v41 --version 2 with all "
            "--nodes");
  replies[1]["versions"].as_array().push_back(VersionWith("2", 0, {{"published", false}}));
  EXPECT_THAT(Only(Found(replies)).remedy, StartsWith("engramctl publish")) << "it is there";
  replies[0]["reserved"] = json::array{json::object{{"model", "v41"}, {"holder", "publish by a"}}};
  problem = Only(Found(replies));
  EXPECT_EQ(problem.kind, "tool_at_work");
  EXPECT_EQ(problem.what, "model v41: publish by a is under way");
  EXPECT_FALSE(problem.needs_person) << "the tool is about to publish it there";
}

TEST(Problems, AnOpenPublicationIsTold) {
  std::vector<json::object> replies = SoundReplies();
  const json::value promised = VersionWith(
      "2", 0, {{"published", false}, {"prepared_generation", "2"}, {"promised_generation", "2"}});
  for (json::object& reply : replies) reply["versions"].as_array().push_back(promised);
  const Problem problem = Only(Found(replies));
  EXPECT_EQ(problem.kind, "publication_open");
  EXPECT_EQ(problem.what,
            "version 2 of v41 (generation 2) is promised by m0, m1, m2, and no tool is there to "
            "commit it");
  EXPECT_THAT(problem.remedy, AllOf(HasSubstr("engramctl publish --name v41 --version 2"),
                                    HasSubstr("engramctl abort --name v41 --version 2")));
  replies[0]["reserved"] = json::array{json::object{{"model", "v41"}, {"holder", "a"}}};
  EXPECT_EQ(Only(Found(replies)).kind, "tool_at_work");
  replies[0]["reserved"] = json::array();
  replies[0]["versions"] = json::array{VersionReply("2", 2)};
  EXPECT_EQ(Only(Found(replies)).kind, "behind") << "committed on m0: no abort";
}

TEST(Problems, APreparationThatLapsesNeedsNoPerson) {
  const Problem problem =
      With("versions", {VersionReply("1", 1),
                        VersionWith("2", 0, {{"published", false}, {"prepared_generation", "2"}})});
  EXPECT_EQ(problem.kind, "preparation_lapses");
  EXPECT_FALSE(problem.needs_person);
}

TEST(Problems, OneVersionWithTwoDigestsIsTold) {
  const Problem problem = With("versions", {VersionWith("1", 1, {{"digest", "other"}})});
  EXPECT_EQ(problem.kind, "rows_differ");
  EXPECT_EQ(problem.what,
            "version 1 of v41 has other rows on some members: digest digest-of-1 on m0, m2; other "
            "on m1");
}

TEST(Problems, WhatAMemberCannotServeIsTold) {
  Problem problem = With(
      "versions", {VersionWith("1", 1, {{"loaded", false}, {"problem", "page 3 is damaged"}})});
  EXPECT_EQ(problem.kind, "not_served");
  EXPECT_EQ(problem.what, "m1 (host:1) cannot serve version 1 of v41: page 3 is damaged");
  problem = With(
      "versions",
      {VersionReply("1", 1),
       VersionWith(
           "2", 0,
           {{"published", false}, {"loaded", false}, {"pinned", true}, {"problem", "no memory"}})});
  EXPECT_EQ(problem.what, "m1 (host:1) cannot serve version 2 of v41: no memory");
  problem = With("why", "data thread 0 has stood still for 7.0 s");
  EXPECT_EQ(problem.kind, "not_ready");
  EXPECT_EQ(problem.what, "m1 (host:1) is not ready: data thread 0 has stood still for 7.0 s");
  problem = With("recent_unreadable", "3");
  EXPECT_EQ(problem.kind, "lookups_fail");
  EXPECT_THAT(problem.what, HasSubstr("failed 3 of 50 lookups"));
  std::vector<json::object> empty = SoundReplies();
  for (json::object& reply : empty) reply["versions"] = json::array();
  const auto found = Found(empty);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[1].kind, "nothing_published");
  EXPECT_EQ(found[1].what, "m1 (host:1) has no published version");
}

TEST(Problems, DamageAndTroubleOfTheStoreAreTold) {
  Problem problem = With(
      "damage",
      {json::object{
          {"model", "v41"}, {"version", "1"}, {"partitions", "2"}, {"why", "page 3 of layer 1"}}});
  EXPECT_EQ(problem.kind, "damaged");
  EXPECT_EQ(problem.what,
            "m1 (host:1) has 2 damaged partitions of version 1 of v41 in its store, and no sound "
            "copy: page 3 of layer 1");
  problem = With("unmended", "4");
  EXPECT_EQ(problem.kind, "damaged_in_memory");
  EXPECT_THAT(problem.what, HasSubstr("in 4 partitions"));
  json::object store = SoundReply("m1").at("store").as_object();
  store["problem"] = "writing to /s: the disk is full";
  store["full"] = true;
  problem = With("store", store);
  EXPECT_EQ(problem.kind, "disk_full");
  EXPECT_THAT(problem.remedy, HasSubstr("engramctl drop"));
  store["full"] = false;
  EXPECT_EQ(With("store", store).kind, "store_read_only");
  store["problem"] = "";
  store["waiting_ms"] = "12345";
  problem = With("store", store);
  EXPECT_EQ(problem.kind, "store_silent");
  EXPECT_EQ(problem.what, "the store of m1 (host:1) has not answered for 12 s");
  store["waiting_ms"] = "100";
  std::vector<json::object> replies = SoundReplies();
  replies[1]["store"] = store;
  EXPECT_THAT(Found(replies), IsEmpty()) << "a look takes its time";
}

TEST(Problems, LoadingAndDrainingNeedNoPersonAndComeLast) {
  std::vector<json::object> replies = SoundReplies();
  replies[0]["loading"] = true;
  replies[0]["state"] = "joining";
  replies[0]["versions"] = json::array();
  replies[1]["state"] = "draining";
  replies[2]["unmended"] = "1";
  const auto found = Found(replies);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].kind, "damaged_in_memory");
  EXPECT_EQ(found[1].what, "m0 (host:0) is still loading its tables");
  EXPECT_EQ(found[2].what, "m1 (host:1) is draining: it ends when its clients have left");
  EXPECT_FALSE(found[1].needs_person || found[2].needs_person);
}

}  // namespace
}  // namespace engram::ctl
