#include "common/io/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace engram::io {
namespace {

using testing::HasSubstr;

TEST(Json, IntegersKeepSixtyFourBits) {
  const auto value = ParseJson(R"({"a":9223372036854775807,"b":-9223372036854775808})", "text");
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*GetInt(value->get_object(), "a", "text"), INT64_MAX);
  EXPECT_EQ(*GetInt(value->get_object(), "b", "text"), INT64_MIN);
}

TEST(Json, BadTextIsRefusedWithItsOffset) {
  EXPECT_THAT(ParseJson("{\"a\": ?}", "the text").status().message(),
              HasSubstr("the text: not valid JSON at byte 6"));
  EXPECT_FALSE(ParseJson("{\"a\": 1", "text").ok());
  EXPECT_FALSE(ParseJson("", "text").ok());
  EXPECT_FALSE(ParseJson("{} {}", "text").ok());
  EXPECT_FALSE(ParseJson(std::string(100'000, '['), "text").ok());
  EXPECT_TRUE(ParseJson(" {} \n", "text").ok());
}

TEST(Json, TypedAccessNamesKeyAndValue) {
  const auto value = ParseJson(R"({"i":3,"d":0.5,"s":"x","b":true,"n":null})", "text");
  ASSERT_TRUE(value.ok());
  const json::object& object = value->get_object();
  EXPECT_EQ(*GetDouble(object, "i", "config"), 3.0);
  EXPECT_EQ(*GetDouble(object, "d", "config"), 0.5);
  EXPECT_EQ(*GetString(object, "s", "config"), "x");
  EXPECT_TRUE(*GetBool(object, "b", "config"));
  EXPECT_THAT(GetInt(object, "d", "config").status().message(), HasSubstr("config: \"d\" is"));
  EXPECT_THAT(GetInt(object, "n", "config").status().message(), HasSubstr("\"n\" is null"));
  EXPECT_THAT(GetBool(object, "absent", "config").status().message(), HasSubstr("no \"absent\""));
  EXPECT_FALSE(GetString(object, "i", "config").ok());
  EXPECT_FALSE(GetDouble(object, "s", "config").ok());
}

TEST(Json, MissingFileIsNotFound) {
  EXPECT_EQ(ParseJsonFile("/nonexistent.json").status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace engram::io
