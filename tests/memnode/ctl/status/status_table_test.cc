// What people and scripts read.
#include "memnode/ctl/status/status_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/memnode/ctl/status/replies.h"

namespace engram::ctl {
namespace {

using testing::AllOf;
using testing::Each;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

std::string TableOf(const std::vector<Answer>& answers) {
  const ClusterView view = ViewCluster(answers);
  return StatusTable(view, FindProblems(view), "NOW");
}
json::object JsonOf(const std::vector<Answer>& answers) {
  const ClusterView view = ViewCluster(answers);
  return StatusJson(view, FindProblems(view), "NOW");
}
std::vector<std::string> LinesOf(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}
// m0 after a second with 1,000 rows, m1 with two thirds in memory, m2 away.
std::vector<Answer> Mixed() {
  json::object later = SoundReply("m0");
  later["clock_ns"] = "6000000000";
  later["rows_sent"] = "1234567";
  later["service_counts"] = {"10", "40", "0", "0"};
  json::object cold = SoundReply("m1");
  cold["rows"] = "3000000";
  cold["rows_in_memory"] = "2000000";
  cold["memory_bytes"] = "192000000000";
  std::vector<Answer> answers = AnswersOf({later, cold});
  answers[0].before = *ParseMemberReply(SoundReply("m0"), "host:0");
  answers.push_back(NoAnswer("host:2", Unavailable("connect: Connection refused")));
  return answers;
}

TEST(StatusTable, ShowsEachMemberInOneLine) {
  EXPECT_EQ(
      TableOf(Mixed()),
      "3 members at NOW; rows/s sent and p99 over 1.0 s\n"
      "\n"
      "member state   epoch parts memory store version in mem  cold rows/s    p99 behind\n"
      "m0     serving     3    44  268kB 300kB v41:1     100%     0  1.22M <250us      0\n"
      "m1     serving     3    44  192GB 300kB v41:1    66.6% 1.00M      -      -      0\n"
      "m2     away        -     -      -     - -            -     -      -      -      -\n"
      "\n"
      "! m2 (host:2) does not answer: connect: Connection refused\n"
      "  do: start it again, or free it if it hangs; where it runs, correct --nodes. Rows with "
      "no other\n"
      "      owner cannot be had until then\n");
}

TEST(StatusTable, ASoundClusterNeedsNoPerson) {
  const std::string text = TableOf(AnswersOf(SoundReplies()));
  EXPECT_THAT(text, EndsWith("\nnothing needs a person\n"));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("zone")), Not(HasSubstr("over"))));
}

TEST(StatusTable, ZonesAreShownWhereThereAreSome) {
  std::vector<json::object> replies = SoundReplies();
  replies[1]["zone"] = "east";
  const auto lines = LinesOf(TableOf(AnswersOf(replies)));
  EXPECT_THAT(lines[2], HasSubstr("member state   zone epoch"));
  EXPECT_THAT(lines[4], HasSubstr("m1     serving east     3"));
}

TEST(StatusTable, FitsAHundredColumnsWhateverTheNames) {
  const std::string longest(300, 'n');
  std::vector<json::object> replies = SoundReplies();
  for (json::object& reply : replies) {
    reply["member"] = reply.at("member").as_string().c_str() + longest;
    reply["zone"] = longest;
    reply["epoch"] = 4294967295;
    for (const char* key : {"rows", "memory_bytes", "partitions"}) {
      reply[key] = "18446744073709551615";
    }
    json::object version = VersionReply(longest, UINT64_MAX);
    version["model"] = longest;
    reply["versions"] = json::array{version};
  }
  const auto lines = LinesOf(TableOf(AnswersOf(replies)));
  for (size_t i = 0; i < 6; ++i) EXPECT_LE(lines[i].size(), 100u) << lines[i];
  EXPECT_THAT(lines[3], HasSubstr("nnn~ "));
  EXPECT_THAT(lines[3], HasSubstr("18.4EB"));
}

TEST(StatusTable, NamesMoveNoCursor) {
  std::vector<json::object> replies = SoundReplies();
  replies[1]["member"] = "m1\x1b[2J\n";
  EXPECT_THAT(TableOf(AnswersOf(replies)), AllOf(HasSubstr("m1?[2J?"), Not(HasSubstr("\x1b"))));
}

TEST(StatusTable, SharesAreRoundedDown) {
  std::vector<json::object> replies = SoundReplies();
  replies[0]["rows"] = "1000000";
  replies[0]["rows_in_memory"] = "999999";
  EXPECT_THAT(LinesOf(TableOf(AnswersOf(replies)))[3],
              AllOf(HasSubstr(" 99.9% "), HasSubstr(" 1 ")));
}

TEST(StatusJson, HasTheKeysThatScriptsRead) {
  const json::object told = JsonOf(Mixed());
  EXPECT_EQ(told.at("healthy"), false);
  EXPECT_EQ(told.at("time"), "NOW");
  ASSERT_THAT(told.at("members").as_array(), SizeIs(3));
  const json::object& first = told.at("members").at(0).as_object();
  EXPECT_EQ(first.at("name"), "m0");
  EXPECT_EQ(first.at("address"), "host:0");
  EXPECT_EQ(first.at("state"), "serving");
  EXPECT_EQ(first.at("epoch"), 3);
  EXPECT_EQ(first.at("zone"), "");
  EXPECT_EQ(first.at("partitions"), 44);
  EXPECT_EQ(first.at("memory_bytes"), "268000");
  EXPECT_EQ(first.at("behind"), "0");
  EXPECT_EQ(first.at("rows_per_s"), 1224567.0);
  EXPECT_EQ(first.at("p99_us_max"), 250.0);
  EXPECT_EQ(first.at("versions").at(0).at("generation"), "1");
  EXPECT_TRUE(told.at("members").at(1).at("rows_per_s").is_null()) << "one look";
  const json::object& away = told.at("members").at(2).as_object();
  EXPECT_EQ(away.at("name"), "m2");
  EXPECT_EQ(away.at("state"), "away");
  EXPECT_THAT(std::string(away.at("error").as_string()), HasSubstr("refused"));
  for (const char* key : {"zone", "epoch", "partitions", "versions", "behind"}) {
    EXPECT_TRUE(away.at(key).is_null()) << key;
  }
  ASSERT_THAT(told.at("problems").as_array(), SizeIs(1));
  const json::object& problem = told.at("problems").at(0).as_object();
  EXPECT_EQ(problem.at("kind"), "unreachable");
  EXPECT_EQ(problem.at("members"), json::value({"m2"}));
  EXPECT_EQ(problem.at("needs_person"), true);
  EXPECT_TRUE(problem.at("what").is_string() && problem.at("remedy").is_string());
}

TEST(StatusJson, NotesLeaveAClusterHealthy) {
  std::vector<json::object> replies = SoundReplies();
  replies[0]["state"] = "draining";
  const json::object told = JsonOf(AnswersOf(replies));
  EXPECT_EQ(told.at("healthy"), true);
  ASSERT_THAT(told.at("problems").as_array(), SizeIs(1));
  EXPECT_EQ(told.at("problems").at(0).at("needs_person"), false);
}

}  // namespace
}  // namespace engram::ctl
