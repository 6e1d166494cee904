// An engine must not run on tables that are not its checkpoint's, also where names, sizes and
// hashing are the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "common/checkpoint/safetensors.h"
#include "tests/support/cluster.h"
#include "tests/support/http_get.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing_support::Binary;
using testing_support::Cluster;
using testing_support::Finished;
using testing_support::RunToEnd;
namespace fs = std::filesystem;

class Content : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("content");
    ours_ = MakeModel("ours", 1);
    others_ = MakeModel("others", 2);
  }
  void TearDown() override { fs::remove_all(work_dir_); }

  // Two folders of the same name, in all but the numbers alike.
  std::string MakeModel(const std::string& where, int seed) const {
    const std::string dir = work_dir_ + "/" + where + "/tiny";
    fs::create_directories(work_dir_ + "/" + where);
    const Finished made = RunToEnd({Binary("engramctl"), "make-model", "--preset", "tiny", "--seed",
                                    std::to_string(seed), "--out", dir},
                                   work_dir_);
    EXPECT_EQ(made.exit_code, 0) << made.err;
    return dir;
  }
  // The folder without its tables.
  std::string WithoutTables(const std::string& dir) const {
    const std::string bare = work_dir_ + "/bare/tiny";
    fs::create_directories(bare);
    for (const std::string file : {"config.json", "tokenizer.json", "engram_token_map.bin"}) {
      fs::copy(dir + "/" + file, bare);
    }
    const auto checkpoint = io::Checkpoint::Open(dir);
    EXPECT_TRUE(checkpoint.ok());
    std::vector<io::SafetensorsWriter::Declaration> kept;
    for (const auto& [name, info] : checkpoint->tensors()) {
      if (name.find("engram.embed.") == std::string::npos) {
        kept.push_back({name, *info.dtype, info.shape});
      }
    }
    EXPECT_LT(kept.size(), checkpoint->tensors().size());
    auto writer = io::SafetensorsWriter::Create(bare + "/model.safetensors", kept);
    EXPECT_TRUE(writer.ok());
    for (const auto& tensor : kept) {
      EXPECT_TRUE(writer->Append(checkpoint->Get(tensor.name)->bytes).ok());
    }
    EXPECT_TRUE(writer->Finish().ok());
    return bare;
  }
  static std::vector<std::string> With(std::vector<std::string> argv,
                                       const std::vector<std::string>& sets) {
    for (const std::string& set : sets) argv.insert(argv.end(), {"--set", set});
    return argv;
  }
  Finished Generate(const std::string& model, const Cluster& cluster,
                    const std::vector<std::string>& sets = {}) const {
    return RunToEnd(With({Binary("engram-compute"), "generate", "--model", model, "--memnodes",
                          cluster.memnodes(), "--prompt", "hello", "--max-tokens", "3"},
                         sets),
                    work_dir_, 20s);
  }
  std::string Digest(const std::string& model, bool write) const {
    std::vector<std::string> argv = {Binary("engramctl"), "digest", "--model", model};
    if (write) argv.push_back("--write");
    const Finished run = RunToEnd(argv, work_dir_);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return run.out.substr(0, run.out.find('\n'));
  }

  std::string work_dir_, ours_, others_;
};

TEST_F(Content, AnEngineRefusesTablesThatAreNotItsCheckpoints) {
  const Cluster cluster(work_dir_, others_, 2);
  const Finished run = Generate(ours_, cluster);
  EXPECT_EQ(run.exit_code, 1) << run.out;
  EXPECT_THAT(run.err, AllOf(HasSubstr("serve other tables than " + ours_), HasSubstr("row "),
                             HasSubstr(" of layer "), HasSubstr("SHA-256"),
                             HasSubstr(Digest(others_, false))));
  const Finished right = Generate(others_, cluster);
  EXPECT_EQ(right.exit_code, 0) << right.err;
  EXPECT_THAT(right.err, Not(HasSubstr("content not compared")));
}

TEST_F(Content, WithoutTablesOfItsOwnItInsistsOnTheDigestOrSaysThatNothingWasCompared) {
  const Cluster cluster(work_dir_, ours_, 2);
  const std::string digest = Digest(ours_, true), other = Digest(others_, false);
  const std::string bare = WithoutTables(ours_);
  const Finished unknown = Generate(bare, cluster);
  EXPECT_EQ(unknown.exit_code, 0) << unknown.err;
  const size_t said = unknown.err.find("content not compared");
  ASSERT_NE(said, std::string::npos) << unknown.err;
  EXPECT_EQ(unknown.err.find("content not compared", said + 1), std::string::npos) << "once";

  const Finished named = Generate(bare, cluster, {"engram.content_digest=" + digest});
  EXPECT_EQ(named.exit_code, 0) << named.err;
  EXPECT_THAT(named.err, Not(HasSubstr("content not compared")));
  fs::copy(ours_ + "/engram_content_digest.txt", bare);
  EXPECT_EQ(Generate(bare, cluster).exit_code, 0);

  fs::remove(bare + "/engram_content_digest.txt");
  const Finished refused = Generate(bare, cluster, {"engram.content_digest=" + other});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("content_digest"), HasSubstr(digest), HasSubstr(other)));
}

TEST_F(Content, TheServerTellsWhichTablesItRunsOn) {
  const Cluster cluster(work_dir_, ours_, 1);
  const std::string digest = Digest(ours_, false);
  testing_support::Process server(
      "serve",
      With({Binary("engram-compute"), "serve", "--model", ours_, "--memnodes", cluster.memnodes()},
           {"api.listen=127.0.0.1:0"}),
      work_dir_);
  const std::string ready = server.WaitLine("ready ", 20s);
  EXPECT_EQ(testing_support::ValueOf(ready, "content_digest"), digest) << server.Stderr();
  EXPECT_EQ(testing_support::ValueOf(ready, "tables_version"), "1");
  EXPECT_EQ(testing_support::ValueOf(ready, "compared"), "rows");
  const auto get = [&](const std::string& path) {
    return testing_support::HttpGet(testing_support::ValueOf(ready, "http"), path);
  };
  EXPECT_THAT(get("/version"), AllOf(HasSubstr(digest), HasSubstr("\"compared\":\"rows\"")));
  EXPECT_THAT(get("/metrics"), AllOf(HasSubstr("engram_compute_tables_info{"), HasSubstr(digest)));
}

}  // namespace
}  // namespace engram
