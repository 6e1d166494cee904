// Whatever a node replies is read, or refused by a message that names the node and the key.
#include "memnode/ctl/status/member_reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/memnode/ctl/status/replies.h"

namespace engram::ctl {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const json::object& reply) {
  const auto parsed = ParseMemberReply(reply, "host:7400");
  return parsed.ok() ? "none" : parsed.status().message();
}

TEST(MemberReply, IsReadWhole) {
  json::object reply = SoundReply("m1");
  reply["zone"] = "east";
  reply["rows_sent"] = "18446744073709551615";
  reply["damage"] = json::array{
      json::object{{"model", "v41"}, {"version", "1"}, {"partitions", "2"}, {"why", "bits"}}};
  reply["reserved"] = json::array{json::object{{"model", "v41"}, {"holder", "publish by a"}}};
  const auto read = ParseMemberReply(reply, "host:7400");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->member, "m1");
  EXPECT_EQ(read->zone, "east");
  EXPECT_EQ(read->epoch, 3u);
  EXPECT_EQ(read->members, (std::vector<std::string>{"m0", "m1", "m2"}));
  EXPECT_EQ(read->rows_sent, UINT64_MAX);
  EXPECT_EQ(read->service_counts.size(), read->service_bounds_us.size() + 1);
  ASSERT_TRUE(read->store.has_value());
  EXPECT_EQ(read->store->free_bytes, 7'000'000'000u);
  ASSERT_EQ(read->versions.size(), 1u);
  EXPECT_EQ(read->versions.front().generation, 1u);
  EXPECT_EQ(read->damage.front().partitions, 2u);
  EXPECT_EQ(read->reserved.front().holder, "publish by a");
  reply["store"] = nullptr;
  EXPECT_FALSE(ParseMemberReply(reply, "")->store.has_value());
}

TEST(MemberReply, EveryKeyIsNeededAndOfItsType) {
  const json::object sound = SoundReply("m1");
  ASSERT_EQ(ErrorOf(sound), "none");
  for (const auto& [key, value] : sound) {
    json::object without = sound, wrong = sound;
    without.erase(key);
    wrong[key] = json::object{{"a", 1}};
    for (const json::object& reply : {without, wrong}) {
      EXPECT_THAT(ErrorOf(reply), HasSubstr("memory node host:7400: ")) << key;
      EXPECT_THAT(ErrorOf(reply), HasSubstr(std::string(key)));
    }
  }
}

TEST(MemberReply, ListsAndNumbersOfStrangersAreRefused) {
  const auto with = [](const char* key, json::value value) {
    json::object reply = SoundReply("m1");
    reply[key] = std::move(value);
    return ErrorOf(reply);
  };
  EXPECT_THAT(with("members", {"m0", 7}), HasSubstr("\"members\" holds more than names"));
  EXPECT_THAT(with("members", json::array(5000, "m")), HasSubstr("at most 1024 items"));
  EXPECT_THAT(with("service_counts", {"1", "2"}), HasSubstr("2 \"service_counts\" for 3"));
  EXPECT_THAT(with("service_bounds_us", {3.0, 2.0, 1.0}), HasSubstr("ascending"));
  EXPECT_THAT(with("service_bounds_us", {1.0, "2", 3.0}), HasSubstr("more than numbers"));
  EXPECT_THAT(with("rows_sent", "-1"), HasSubstr("expected a number as text"));
  EXPECT_THAT(with("epoch", int64_t{1} << 40), HasSubstr("expected 0 to 4294967295"));
  EXPECT_THAT(with("state", "fine"), HasSubstr("expected joining, serving or draining"));
  EXPECT_THAT(with("member", ""), HasSubstr("\"member\" is empty"));
  EXPECT_THAT(with("versions", {json::object()}), HasSubstr("versions of a memory node"));
  EXPECT_THAT(with("damage", {1}), HasSubstr("damage: not an object"));
  EXPECT_THAT(ErrorOf({}), HasSubstr("memory node host:7400: status: "));
}

}  // namespace
}  // namespace engram::ctl
