// Bad input to the programs: one clear line and a non-zero exit, each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/support/cluster.h"

namespace engram {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::Binary;
using testing_support::Cluster;
using testing_support::Finished;
using testing_support::ReadFile;
using testing_support::RunToEnd;
using testing_support::WriteFile;

class BadInput : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("bad_input");
    model_ = testing_support::MakeModel(work_dir_, "tiny", "paper", 7);
  }
  void TearDown() override { fs::remove_all(work_dir_); }

  Finished Node(std::vector<std::string> sets) {
    std::vector<std::string> argv = {Binary("engram-memnode")};
    std::vector<std::string> all = {"model.path=" + model_, "store.path=" + work_dir_ + "/store",
                                    "control.listen=127.0.0.1:0", "http.listen=127.0.0.1:0"};
    all.insert(all.end(), sets.begin(), sets.end());
    for (const std::string& set : all) {
      argv.push_back("--set");
      argv.push_back(set);
    }
    return RunToEnd(argv, work_dir_, std::chrono::seconds(15));
  }

  Finished Compute(std::vector<std::string> more) {
    std::vector<std::string> argv = {
        Binary("engram-compute"), "generate", "--model", model_, "--prompt", "hello",
        "--max-tokens",           "2"};
    argv.insert(argv.end(), more.begin(), more.end());
    return RunToEnd(argv, work_dir_, std::chrono::seconds(15));
  }

  // The shard of the model that holds the tensor.
  std::string ShardOf(const std::string& tensor) {
    const std::string index = ReadFile(model_ + "/model.safetensors.index.json");
    const size_t at = index.find("\"" + tensor + "\"");
    EXPECT_NE(at, std::string::npos) << tensor;
    const size_t begin = index.find('"', index.find(':', at)) + 1;
    return model_ + "/" + index.substr(begin, index.find('"', begin) - begin);
  }

  // Replaces text inside a file by text of the same length.
  static void Patch(const std::string& path, const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    std::string content = ReadFile(path);
    const size_t at = content.find(from);
    ASSERT_NE(at, std::string::npos) << from << " in " << path;
    WriteFile(path, content.replace(at, from.size(), to));
  }

  std::string work_dir_;
  std::string model_;
};

// Exit code 1 and exactly one line on stderr that is not a log line and says `expected`.
void ExpectOneLine(const Finished& run, const std::string& program, const std::string& expected) {
  EXPECT_EQ(run.exit_code, 1) << run.err;
  EXPECT_THAT(run.err, HasSubstr(expected));
  const size_t at = run.err.find(program + ": ");
  ASSERT_NE(at, std::string::npos) << run.err;
  EXPECT_EQ(std::count(run.err.begin() + static_cast<std::ptrdiff_t>(at), run.err.end(), '\n'), 1)
      << run.err;
}

constexpr char kTable[] = "model.layers.1.engram.embed.weight";

TEST_F(BadInput, MissingModel) {
  ExpectOneLine(Node({"model.path=/nowhere/model"}), "engram-memnode", "/nowhere/model");
  model_ = "/nowhere/model";
  ExpectOneLine(Compute({"--local"}), "engram-compute", "/nowhere/model");
}

TEST_F(BadInput, TruncatedShard) {
  const std::string shard = ShardOf(kTable);
  fs::resize_file(shard, fs::file_size(shard) - 1000);
  ExpectOneLine(Node({}), "engram-memnode", fs::path(shard).filename());
  ExpectOneLine(Compute({"--local"}), "engram-compute", fs::path(shard).filename());
}

TEST_F(BadInput, HeaderLongerThanTheFile) {
  const std::string shard = ShardOf(kTable);
  std::string content = ReadFile(shard);
  content[6] = '\x7f';  // header length in the 2^55s
  WriteFile(shard, content);
  ExpectOneLine(Node({}), "engram-memnode", fs::path(shard).filename());
}

TEST_F(BadInput, TableOfAnotherDtype) {
  const std::string shard = ShardOf(kTable);
  Patch(shard, "\"BF16\"", "\"F16\" ");
  ExpectOneLine(Node({}), "engram-memnode", "F16");
}

TEST_F(BadInput, TableMissing) {
  Patch(ShardOf(kTable), kTable, "model.layers.1.engram.embed.weighs");
  ExpectOneLine(Node({}), "engram-memnode", kTable);
}

TEST_F(BadInput, BackboneTensorMissing) {
  Patch(ShardOf("model.norm.weight"), "\"model.norm.weight\"", "\"model.norm.weighs\"");
  ExpectOneLine(Compute({"--local"}), "engram-compute", "model.norm.weight");
}

TEST_F(BadInput, TokenMapOfTheWrongSize) {
  fs::resize_file(model_ + "/engram_token_map.bin", 400);
  ExpectOneLine(Compute({"--local"}), "engram-compute", "engram_token_map.bin");
  ExpectOneLine(Node({}), "engram-memnode", "engram_token_map.bin");
}

TEST_F(BadInput, UnknownConfigKeyNamesTheNearest) {
  ExpectOneLine(Node({"store.pth=x"}), "engram-memnode", "did you mean 'store.path'");
  ExpectOneLine(Compute({"--local", "--set", "engine.prefil_chunk=3"}), "engram-compute",
                "did you mean 'engine.prefill_chunk'");
}

TEST_F(BadInput, UnknownModelConfigKeyIsRefused) {
  std::string config = ReadFile(model_ + "/config.json");
  config.insert(config.find('{') + 1, "\"sliding_window_of_doom\": 4,");
  WriteFile(model_ + "/config.json", config);
  ExpectOneLine(Compute({"--local"}), "engram-compute", "sliding_window_of_doom");
}

TEST_F(BadInput, PortInUse) {
  const Cluster cluster(work_dir_, model_, 1);
  ExpectOneLine(Node({"control.listen=" + cluster.control(0)}), "engram-memnode",
                cluster.control(0));
  ExpectOneLine(Node({"http.listen=" + cluster.http(0)}), "engram-memnode", cluster.http(0));
}

TEST_F(BadInput, NoMemoryNodeReachable) {
  ExpectOneLine(Compute({"--memnodes", "127.0.0.1:1,127.0.0.1:2"}), "engram-compute",
                "127.0.0.1:2");
}

TEST_F(BadInput, ClientOfAnotherModelIsRefusedNamingTheField) {
  const Cluster cluster(work_dir_, model_, 1);
  const std::string other = work_dir_ + "/other";
  fs::copy(testing_support::MakeModel(work_dir_, "tiny", "v41", 7), other);
  model_ = other;
  const Finished run =
      Compute({"--memnodes", cluster.memnodes(), "--set", "model.name=tiny-paper-7"});
  ExpectOneLine(run, "engram-compute", "max_ngram_size");
}

TEST_F(BadInput, TwoNodesWithDifferentTablesAreNotMixed) {
  const std::string other = testing_support::MakeModel(work_dir_, "tiny", "paper", 8);
  const std::vector<std::string> same_name = {"--set", "model.name=m", "--set",
                                              "cluster.members=m0,m1"};
  std::vector<std::string> second = same_name;
  second.insert(second.end(), {"--set", "node.name=m1"});
  fs::create_directory(work_dir_ + "/a");
  fs::create_directory(work_dir_ + "/b");
  const Cluster a(work_dir_ + "/a", model_, 1, same_name);
  const Cluster b(work_dir_ + "/b", other, 1, second);
  const Finished run =
      Compute({"--memnodes", a.memnodes() + "," + b.memnodes(), "--set", "model.name=m"});
  ExpectOneLine(run, "engram-compute", "digest");
}

}  // namespace
}  // namespace engram
