#include "common/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

namespace engram::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Sample {
  std::string path = "here";
  int64_t threads = 2;
  double rate = 0.5;
  bool verify = true;
  std::vector<std::string> nodes = {"a:1"};
  Fields fields;

  Sample() {
    fields.Add("store.path", &path, "folder of the store");
    fields.Add("store.verify", &verify, "check pages");
    fields.Add("engine.threads", &threads, 1, 64, "worker threads");
    fields.Add("engine.rate", &rate, "tokens per second");
    fields.Add("nodes", &nodes, "addresses");
  }
};

TEST(Config, ReadsEveryKind) {
  Sample s;
  ASSERT_TRUE(LoadText("store: {path: /x y, verify: false}\nengine:\n  threads: 7\n  rate: "
                       "1e3\nnodes: [a:1, 'b:2']",
                       "t.yaml", s.fields)
                  .ok());
  EXPECT_EQ(s.path, "/x y");
  EXPECT_FALSE(s.verify);
  EXPECT_EQ(s.threads, 7);
  EXPECT_EQ(s.rate, 1000.0);
  EXPECT_THAT(s.nodes, ElementsAre("a:1", "b:2"));
}

TEST(Config, OverridesWinOverTheFile) {
  Sample s;
  const std::string path = testing::TempDir() + "/config_test.yaml";
  std::FILE* f = std::fopen(path.c_str(), "w");
  ASSERT_NE(f, nullptr);
  std::fputs("engine: {threads: 3}\n", f);
  std::fclose(f);
  const std::vector<std::string> sets = {"engine.threads=5", "nodes=x:1,y:2", "store.path=a=b: [c"};
  ASSERT_TRUE(Load(path, sets, s.fields).ok());
  EXPECT_EQ(s.threads, 5);
  EXPECT_THAT(s.nodes, ElementsAre("x:1", "y:2"));
  EXPECT_EQ(s.path, "a=b: [c");
}

TEST(Config, UnknownKeyNamesTheNearestOne) {
  Sample s;
  const Status status = LoadText("engine: {thread: 3}", "t.yaml", s.fields);
  EXPECT_EQ(status.message(),
            "t.yaml: unknown key 'engine.thread'; did you mean 'engine.threads'?");
  const std::vector<std::string> sets = {"store.pat=3"};
  EXPECT_THAT(Load("", sets, s.fields).message(), HasSubstr("did you mean 'store.path'?"));
}

struct BadCase {
  std::string yaml;
  std::string expected;
};
class ConfigRefuses : public testing::TestWithParam<BadCase> {};

TEST_P(ConfigRefuses, WithOneClearLine) {
  Sample s;
  const Status status = LoadText(GetParam().yaml, "t.yaml", s.fields);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr(GetParam().expected));
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Values, ConfigRefuses,
    testing::Values(BadCase{"engine: {threads: many}",
                            "engine.threads = 'many': expected a whole number from 1 to 64"},
                    BadCase{"engine: {threads: 0}", "a whole number from 1 to 64"},
                    BadCase{"engine: {threads: 99999999999999999999}", "a whole number"},
                    BadCase{"engine: {rate: fast}", "expected a number"},
                    BadCase{"store: {verify: maybe}", "expected true or false"},
                    BadCase{"store: 3", "'store' is a section"},
                    BadCase{"nodes: {a: 1}", "expected a list"},
                    BadCase{"nodes: [[1]]", "a list of plain values"},
                    BadCase{"store: {path: [1]}", "expected one value"},
                    BadCase{"store: {path: a}\nstore: {path: b}", "appears twice"},
                    BadCase{"- a\n- b", "expected 'key: value' lines"},
                    BadCase{"a: [", "not valid YAML"}));

TEST(Config, MissingFileIsNamed) {
  Sample s;
  const Status status = Load("/nowhere/x.yaml", {}, s.fields);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("/nowhere/x.yaml"));
}

TEST(Config, DumpIsReadBackUnchanged) {
  Sample a;
  a.path = "with \"quotes\" and # signs";
  a.threads = 9;
  a.nodes = {"p:1", "q:2"};
  Sample b;
  ASSERT_TRUE(LoadText(Dump(a.fields, true), "dump", b.fields).ok());
  EXPECT_EQ(Dump(b.fields, false), Dump(a.fields, false));
  EXPECT_EQ(b.path, a.path);
}

}  // namespace
}  // namespace engram::config
