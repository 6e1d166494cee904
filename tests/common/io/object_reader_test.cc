#include "common/io/object_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace engram::io {
namespace {

using testing::ElementsAre;

TEST(ObjectReader, ReadsWhatIsThere) {
  const json::value value = *ParseJson(
      R"({"s":"x","b":true,"i":-3,"n":"18446744073709551615","h":"ff","l":["1","-2"],"o":{}})",
      "test");
  ObjectReader read(value, "test");
  std::string s;
  bool b = false;
  int32_t i = 0;
  uint64_t n = 0, h = 0;
  std::vector<int64_t> l;
  read.String("s", s);
  read.Bool("b", b);
  read.Int("i", -3, 3, i);
  read.Number("n", n);
  read.Number("h", h, 16);
  read.Numbers("l", 2, l);
  EXPECT_EQ(&read.Object("o"), &value.at("o").as_object());
  EXPECT_EQ(&read.Array("l", 2), &value.at("l").as_array());
  EXPECT_TRUE(read.status().ok()) << read.status().ToString();
  EXPECT_EQ(s, "x");
  EXPECT_TRUE(b);
  EXPECT_EQ(i, -3);
  EXPECT_EQ(n, UINT64_MAX);
  EXPECT_EQ(h, 255u);
  EXPECT_THAT(l, ElementsAre(1, -2));
  EXPECT_TRUE(read.Has("s"));
  EXPECT_FALSE(read.Has("t"));
}

TEST(ObjectReader, SaysWhatIsWrongAndKeepsTheFirst) {
  const json::value value = *ParseJson(R"({"i":4,"n":"12x","m":12,"l":["1",2],"z":""})", "test");
  const auto said = [&](const auto& use) {
    ObjectReader read(value, "test");
    use(read);
    read.Fail(InternalError("another"));
    EXPECT_EQ(read.status().code(), Code::kInvalidArgument);
    return read.status().message();
  };
  int64_t i = 0;
  std::vector<uint64_t> l;
  const auto number = [&](const char* key) {
    return said([&](ObjectReader& read) { read.Number(key, i); });
  };
  EXPECT_EQ(said([&](ObjectReader& read) { read.Int("i", 0, 3, i); }),
            "test: \"i\" is 4, expected 0 to 3");
  EXPECT_EQ(number("n"), "test: \"n\" is \"12x\", expected a number as text");
  EXPECT_EQ(number("m"), "test: \"m\" is 12, expected a number as text");
  EXPECT_EQ(number("z"), "test: \"z\" is \"\", expected a number as text");
  EXPECT_EQ(number("none"), "test: no \"none\"");
  EXPECT_EQ(said([&](ObjectReader& read) { read.Numbers("l", 2, l); }),
            "test: \"l\" is 2, expected a number as text");
  EXPECT_EQ(said([&](ObjectReader& read) { EXPECT_TRUE(read.Array("l", 1).empty()); }),
            "test: \"l\" is not a list of at most 1 items");
  EXPECT_EQ(said([&](ObjectReader& read) { EXPECT_TRUE(read.Object("l").empty()); }),
            "test: no object \"l\"");
  EXPECT_EQ(ObjectReader(value.at("l"), "test").status().message(), "test: not an object");
}

}  // namespace
}  // namespace engram::io
