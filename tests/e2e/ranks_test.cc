// An engine of several processes under mpirun: the answers of one, and an end for all when one of
// them ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/cluster.h"

namespace engram {
namespace {

using testing::HasSubstr;
using testing_support::Binary;
using testing_support::Finished;
using testing_support::ReadFile;
using testing_support::RunToEnd;

class Ranks : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("ranks");
    if (RunToEnd({"/usr/bin/env", "mpirun", "--version"}, work_dir_).exit_code != 0) {
      GTEST_SKIP() << "mpirun is not installed";
    }
    // As root, and more ranks than cores: a test machine.
    for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                             "OMPI_MCA_rmaps_base_oversubscribe"}) {
      ::setenv(name, "1", 1);
    }
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // Open MPI leaves some behind
    model_ = testing_support::MakeModel(work_dir_, "tiny", GetParam(), 7);
  }
  void TearDown() override {
    if (!work_dir_.empty()) std::filesystem::remove_all(work_dir_);
  }
  Finished Run(int ranks, std::vector<std::string> command) const {
    std::vector<std::string> argv;
    if (ranks > 1) argv = {"/usr/bin/env", "mpirun", "-n", std::to_string(ranks)};
    argv.push_back(Binary("engram-compute"));
    argv.insert(argv.end(), command.begin(), command.end());
    return RunToEnd(argv, work_dir_);
  }

  std::string work_dir_, model_;
};

TEST_P(Ranks, GenerateAndScoreLikeOneProcess) {
  testing_support::WriteFile(work_dir_ + "/in.jsonl",
                             "{\"tokens\":[5,17,9,300,301,302,9,17,5,5,5]}\n{\"tokens\":[42]}\n");
  std::vector<std::string> scores, texts;
  for (const int ranks : {1, 2, 3}) {
    const std::string out = work_dir_ + "/out" + std::to_string(ranks);
    const Finished scored = Run(ranks, {"score", "--model", model_, "--local", "--input",
                                        work_dir_ + "/in.jsonl", "--output", out});
    ASSERT_EQ(scored.exit_code, 0) << scored.err;
    scores.push_back(ReadFile(out));
    const Finished generated =
        Run(ranks, {"generate", "--model", model_, "--local", "--prompt", "The memory node",
                    "--max-tokens", "40", "--ignore-eos", "--temperature", "0.8", "--seed", "3"});
    ASSERT_EQ(generated.exit_code, 0) << generated.err;
    texts.push_back(generated.out);
  }
  EXPECT_FALSE(scores[0].empty());
  EXPECT_EQ(scores[1], scores[0]);
  EXPECT_EQ(scores[2], scores[0]);
  EXPECT_EQ(texts[1], texts[0]);
  EXPECT_EQ(texts[2], texts[0]);
}

TEST_P(Ranks, AnErrorOfOneEndsAllWithThatError) {
  const Finished many = Run(2, {"generate", "--model", work_dir_ + "/nowhere", "--local",
                                "--prompt", "x", "--max-tokens", "1"});
  EXPECT_NE(many.exit_code, 0);
  EXPECT_THAT(many.err, HasSubstr("/nowhere"));
  const Finished compare = Run(
      2, {"bench", "--model", model_, "--memnodes", "127.0.0.1:1", "--compare", "local,remote"});
  EXPECT_NE(compare.exit_code, 0);
  EXPECT_THAT(compare.err, HasSubstr("it takes one rank"));
}

INSTANTIATE_TEST_SUITE_P(Variants, Ranks, testing::Values("paper", "v41"),
                         [](const auto& param_info) { return param_info.param; });

}  // namespace
}  // namespace engram
