// The commands on a model without Engram layers: files in, files out, errors that name file and
// line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "compute/commands/file.h"
#include "compute/commands/options.h"
#include "compute/commands/report.h"
#include "compute/commands/score.h"
#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

TEST(Options, MemoryNodesAreSplitAtCommas) {
  CommonOptions options;
  options.model = "/m";
  options.memnodes = "a:1,b:2";
  const auto config = options.Resolve();
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->lookup.memnodes, (std::vector<std::string>{"a:1", "b:2"}));
}

TEST(Options, MemoryNodesThatAreGivenButEmptyAreNotLocal) {
  CommonOptions options;
  options.model = "/m";
  EXPECT_TRUE(options.Resolve().ok()) << "not given: local";
  options.memnodes = "";
  EXPECT_THAT(options.Resolve().status().message(), HasSubstr("--memnodes \"\" names no"));
}

TEST(Options, LocalAndMemoryNodesExcludeEachOther) {
  CommonOptions options;
  options.model = "/m";
  options.memnodes = "a:1";
  options.local = true;
  EXPECT_THAT(options.Resolve().status().message(), HasSubstr("exclude each other"));
}

TEST(Options, AModelMustBeNamedAndKeysMustExist) {
  CommonOptions options;
  EXPECT_THAT(options.Resolve().status().message(), HasSubstr("--model"));
  options.model = "/m";
  options.sets = {"engine.thread=2"};
  EXPECT_THAT(options.Resolve().status().message(), HasSubstr("engine.threads"));
  options.sets = {"engine.threads=-1"};
  EXPECT_THAT(options.Resolve().status().message(), HasSubstr("engine.threads"));
}

class ScoreTool : public testing::Test {
 protected:
  void SetUp() override {
    const TinyOptions options{.variant = "", .streams = 1};
    config_.model_path = WriteModel(TinyConfig(options), TinyTensors(options));
    config_.prefill_chunk = 4;
    input_ = config_.model_path + "/in.jsonl";
    output_ = config_.model_path + "/out.jsonl";
  }
  void TearDown() override { fs::remove_all(config_.model_path); }

  Status Score(const std::string& lines) {
    std::ofstream(input_) << lines;
    return RunScore(config_, input_, output_);
  }
  // The error, and that it left nothing behind.
  std::string Failure(const std::string& lines) {
    const Status status = Score(lines);
    EXPECT_FALSE(status.ok());
    size_t files = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(config_.model_path)) ++files;
    EXPECT_EQ(files, 4u) << "config, weights, token map, input";
    return status.message();
  }

  ComputeConfig config_;
  std::string input_, output_;
};

TEST_F(ScoreTool, WritesALineForEachLine) {
  ASSERT_TRUE(Score("{\"tokens\":[5,6,7,8,9,10]}\n{\"tokens\":[42]}\n").ok());
  std::ifstream out(output_);
  std::string first, second;
  std::getline(out, first);
  std::getline(out, second);
  EXPECT_EQ(second, "{\"logprobs\":[null]}");
  const auto parsed = io::ParseJson(first, "out");
  ASSERT_TRUE(parsed.ok());
  const json::array& logprobs = parsed->at("logprobs").as_array();
  ASSERT_EQ(logprobs.size(), 6u);
  EXPECT_TRUE(logprobs[0].is_null());
  for (size_t i = 1; i < 6; ++i) EXPECT_LT(logprobs[i].to_number<double>(), 0.0);
}

TEST_F(ScoreTool, ErrorsNameTheLine) {
  EXPECT_THAT(Failure("{\"tokens\":[1]}\n{\"tokens\":[]}\n"), HasSubstr("in.jsonl line 2"));
  EXPECT_THAT(Failure("{\"tokens\":[1]}\n{\"tokens\":[1,97]}\n"),
              HasSubstr("line 2: token 97 at index 1"));
  EXPECT_THAT(Failure("{\"tokens\":[1,-3]}\n"), HasSubstr("line 1: token 1 is -3"));
  EXPECT_THAT(Failure("{\"tokens\":[1,\n"), HasSubstr("line 1"));
  EXPECT_THAT(Failure("[1,2]\n"), HasSubstr("line 1"));
  EXPECT_THAT(Failure("{\"tokens\":[1.5]}\n"), HasSubstr("1.5"));
}

TEST_F(ScoreTool, AMissingModelOrInputIsNamed) {
  config_.model_path = "/nowhere/model";
  EXPECT_THAT(RunScore(config_, "/nowhere/in", output_).message(), HasSubstr("/nowhere/in"));
  std::ofstream(input_) << "{\"tokens\":[1]}\n";
  EXPECT_THAT(RunScore(config_, input_, output_).message(), HasSubstr("/nowhere/model"));
}

TEST(Reports, SayPositionsWithoutTheirRows) {
  EngineSnapshot figures;
  EXPECT_THAT(TextReport(figures), testing::Not(testing::HasSubstr("degraded")));
  figures.degraded_positions = 7;
  EXPECT_THAT(TextReport(figures), testing::HasSubstr("degraded: 7 positions"));
  Completion completion;
  completion.finish.degraded_positions = 5;
  EXPECT_THAT(JsonReport(figures, completion, "x"), testing::HasSubstr("\"degraded_positions\":5"));
}

TEST(ReplacingFile, KeepsTheOldContentUntilCommitted) {
  const std::string path = testing::TempDir() + "/replacing." + std::to_string(getpid());
  std::ofstream(path) << "old";
  {
    auto file = ReplacingFile::Create(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write("half").ok());
  }
  EXPECT_EQ(*ReadWholeFile(path), "old");
  auto file = ReplacingFile::Create(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Write("new").ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(*ReadWholeFile(path), "new");
  fs::remove(path);
  EXPECT_FALSE(ReplacingFile::Create("/nowhere/file").ok());
}

}  // namespace
}  // namespace engram::compute
