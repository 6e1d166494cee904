// The claim of the whole system: rows over the network give the same bits as tables in the process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/io/json.h"
#include "tests/support/cluster.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing_support::Binary;
using testing_support::Cluster;
using testing_support::Finished;
using testing_support::ReadFile;
using testing_support::RunToEnd;

constexpr char kPrompt[] =
    "The memory node keeps the rows, and the engine asks for them ahead of time.";

class SameAnswer : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("same_answer");
    model_ = testing_support::MakeModel(work_dir_, "tiny", GetParam(), 7);
  }
  void TearDown() override { std::filesystem::remove_all(work_dir_); }

  // The --json file of one generate run, as text.
  json::object Generate(const std::string& name, std::vector<std::string> where,
                        std::vector<std::string> sampling) {
    const std::string out = work_dir_ + "/" + name + ".json";
    std::vector<std::string> argv = {
        Binary("engram-compute"), "generate", "--model",      model_,   "--prompt", kPrompt,
        "--max-tokens",           "64",       "--ignore-eos", "--json", out};
    argv.insert(argv.end(), where.begin(), where.end());
    argv.insert(argv.end(), sampling.begin(), sampling.end());
    const Finished run = RunToEnd(argv, work_dir_);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    auto parsed = io::ParseJsonFile(out);
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    return parsed.ok() ? parsed->as_object() : json::object();
  }

  std::string Score(const std::string& name, std::vector<std::string> where) {
    const std::string input = work_dir_ + "/in.jsonl";
    testing_support::WriteFile(
        input,
        "{\"tokens\":[5,17,9,300,301,302,9,17,5,5,5]}\n"
        "{\"tokens\":[42]}\n{\"tokens\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}\n");
    const std::string out = work_dir_ + "/" + name + ".jsonl";
    std::vector<std::string> argv = {
        Binary("engram-compute"), "score", "--model", model_, "--input", input, "--output", out};
    argv.insert(argv.end(), where.begin(), where.end());
    const Finished run = RunToEnd(argv, work_dir_);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return ReadFile(out);
  }

  std::string work_dir_;
  std::string model_;
};

TEST_P(SameAnswer, WithOneTwoAndThreeMemoryNodes) {
  const json::object greedy = Generate("greedy", {"--local"}, {});
  const json::object sampled =
      Generate("sampled", {"--local"}, {"--temperature", "0.8", "--seed", "3"});
  const std::string scores = Score("local", {"--local"});
  ASSERT_EQ(greedy.at("tokens").as_array().size(), 64u);
  ASSERT_EQ(greedy.at("logprobs").as_array().size(), 64u);
  EXPECT_NE(greedy.at("tokens"), sampled.at("tokens"));
  ASSERT_THAT(scores, HasSubstr("{\"logprobs\":[null"));

  for (int count : {1, 2, 3}) {
    const Cluster cluster(work_dir_, model_, count);
    const std::vector<std::string> remote = {"--memnodes", cluster.memnodes()};
    const std::string suffix = std::to_string(count);
    const json::object a = Generate("greedy" + suffix, remote, {});
    EXPECT_EQ(a.at("tokens"), greedy.at("tokens")) << count;
    EXPECT_EQ(a.at("logprobs"), greedy.at("logprobs")) << count;
    const json::object b =
        Generate("sampled" + suffix, remote, {"--temperature", "0.8", "--seed", "3"});
    EXPECT_EQ(b.at("tokens"), sampled.at("tokens")) << count;
    EXPECT_EQ(b.at("logprobs"), sampled.at("logprobs")) << count;
    EXPECT_EQ(Score("remote" + suffix, remote), scores) << count;

    // Every node took part, and together they sent each distinct row once.
    ASSERT_EQ(a.at("nodes").as_array().size(), static_cast<size_t>(count));
    int64_t fetched = 0;
    for (const json::value& node : a.at("nodes").as_array()) {
      EXPECT_GT(node.at("rows_fetched").to_number<int64_t>(), 0) << json::serialize(node);
      fetched += node.at("rows_fetched").to_number<int64_t>();
    }
    EXPECT_GE(fetched, a.at("rows_distinct").to_number<int64_t>());
    EXPECT_LE(a.at("rows_distinct").to_number<int64_t>(), a.at("rows_asked").to_number<int64_t>());
  }
}

TEST_P(SameAnswer, AcrossPrefillChunks) {
  const Cluster cluster(work_dir_, model_, 2);
  const std::string whole = Score("whole", {"--local", "--set", "engine.prefill_chunk=512"});
  for (const char* chunk : {"1", "3", "7"}) {
    EXPECT_EQ(Score(std::string("chunk") + chunk, {"--memnodes", cluster.memnodes(), "--set",
                                                   std::string("engine.prefill_chunk=") + chunk}),
              whole)
        << chunk;
  }
}

TEST_P(SameAnswer, AfterANodeRestartsFromItsStoreAlone) {
  const std::string before = Score("before", {"--local"});
  { const Cluster first(work_dir_, model_, 2); }
  const Cluster second(work_dir_, model_, 2);  // the stores exist: nothing is imported again
  EXPECT_EQ(Score("after", {"--memnodes", second.memnodes()}), before);
}

TEST_P(SameAnswer, LoadTesterFindsEveryRowRight) {
  const Cluster cluster(work_dir_, model_, 2);
  const std::string report = work_dir_ + "/load.json";
  const Finished run = RunToEnd({Binary("engram-load"), "--model", model_, "--memnodes",
                                 cluster.memnodes(), "--seconds", "0.5", "--json", report},
                                work_dir_);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  auto parsed = io::ParseJsonFile(report);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->at("wrong_rows").to_number<int64_t>(), 0);
  EXPECT_EQ(parsed->at("errors").to_number<int64_t>(), 0);
  EXPECT_GT(parsed->at("verified_rows").to_number<int64_t>(), 1000);
}

INSTANTIATE_TEST_SUITE_P(Variants, SameAnswer, testing::Values("paper", "v41"),
                         [](const auto& param_info) { return param_info.param; });

}  // namespace
}  // namespace engram
