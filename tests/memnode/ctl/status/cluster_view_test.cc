// Which member each address is, rates between two looks, and which members are behind.
#include "memnode/ctl/status/cluster_view.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/memnode/ctl/status/replies.h"

namespace engram::ctl {
namespace {

MemberReply Parsed(const json::object& reply) { return *ParseMemberReply(reply, "host:0"); }

TEST(RateBetween, IsOverTheMembersOwnClock) {
  json::object later = SoundReply("m0");
  later["clock_ns"] = "5500000000";
  later["rows_sent"] = "13000";
  later["service_counts"] = {"108", "1", "0", "0"};
  const auto rate = RateBetween(Parsed(SoundReply("m0")), Parsed(later));
  ASSERT_TRUE(rate.has_value());
  EXPECT_DOUBLE_EQ(rate->seconds, 0.5);
  EXPECT_DOUBLE_EQ(rate->rows_per_s, 6000);
  EXPECT_EQ(rate->p99_us_max, 250) << "98 of 99 were faster: the 99th of a hundred is the slow one";
}

TEST(RateBetween, TheP99IsTheBoundThat99OfAHundredKeep) {
  const auto p99 = [](json::value counts) {
    json::object later = SoundReply("m0");
    later["clock_ns"] = "6000000000";
    later["service_counts"] = std::move(counts);
    return RateBetween(Parsed(SoundReply("m0")), Parsed(later))->p99_us_max;
  };
  EXPECT_EQ(p99({"10", "0", "0", "0"}), std::nullopt) << "no lookup";
  EXPECT_EQ(p99({"11", "0", "0", "0"}), 50);
  EXPECT_EQ(p99({"109", "1", "0", "0"}), 50) << "one of a hundred may be slower";
  EXPECT_EQ(p99({"108", "0", "2", "0"}), 1000);
  EXPECT_EQ(p99({"10", "0", "0", "3"}), INFINITY);
}

TEST(RateBetween, OfAnotherRunOrNoTimeThereIsNone) {
  const MemberReply before = Parsed(SoundReply("m0"));
  EXPECT_FALSE(RateBetween(before, before).has_value());
  json::object other = SoundReply("m0");
  other["clock_ns"] = "6000000000";
  EXPECT_TRUE(RateBetween(before, Parsed(other)).has_value());
  other["run"] = "another";
  EXPECT_FALSE(RateBetween(before, Parsed(other)).has_value());
}

TEST(ClusterView, TheOnlySilentAddressIsTheOnlyMissingMember) {
  std::vector<Answer> answers = AnswersOf({SoundReply("m0"), SoundReply("m2")});
  answers.push_back(NoAnswer("host:9", Unavailable("connect: refused")));
  const ClusterView view = ViewCluster(answers);
  EXPECT_EQ(view.members[2].name, "m1");
  EXPECT_EQ(view.members[2].Label(), "m1 (host:9)");
  EXPECT_EQ(view.members[2].state, "away");
  EXPECT_TRUE(view.missing.empty());
}

TEST(ClusterView, NamesAreNotGuessed) {
  std::vector<Answer> answers = AnswersOf({SoundReply("m0")});
  answers.push_back(NoAnswer("host:8", Unavailable("connect: refused")));
  answers.push_back(NoAnswer("host:9", FailedPrecondition("no secret")));
  const ClusterView view = ViewCluster(answers);
  EXPECT_EQ(view.members[1].name, "host:8");
  EXPECT_EQ(view.members[2].name, "host:9");
  EXPECT_EQ(view.members[2].state, "unknown") << "it answers";
  EXPECT_EQ(view.missing, (std::vector<std::string>{"m1", "m2"}));
}

TEST(ClusterView, BehindCountsPublicationsOfTheNewestKnown) {
  std::vector<json::object> replies = SoundReplies();
  replies[1]["versions"] = json::array{VersionReply("3", 4)};
  replies[2]["loading"] = true;
  const ClusterView view = ViewCluster(AnswersOf(replies));
  EXPECT_EQ(view.newest.at("v41"), (Publication{"3", 4}));
  EXPECT_EQ(view.members[0].behind, 3u);
  EXPECT_EQ(view.members[1].behind, 0u);
  EXPECT_EQ(view.members[2].behind, std::nullopt) << "not known while it loads";
}

TEST(ClusterView, OfTwoPublicationsOfOneGenerationTheNameDecides) {
  std::vector<json::object> replies = SoundReplies();
  replies[1]["versions"] = json::array{VersionReply("2", 1)};
  replies[2]["versions"] = json::array();
  const ClusterView view = ViewCluster(AnswersOf(replies));
  EXPECT_EQ(view.members[0].behind, 1u);
  EXPECT_EQ(view.members[1].behind, 0u);
  EXPECT_EQ(view.members[2].behind, 1u) << "it publishes nothing";
}

}  // namespace
}  // namespace engram::ctl
