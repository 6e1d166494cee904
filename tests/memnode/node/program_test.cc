// The program engram-memnode: its one line of readiness, its answers over HTTP, its one-line
// errors.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/http_get.h"
#include "tests/support/process.h"

namespace engram::memnode {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing_support::Finished;
using testing_support::HttpGet;
using testing_support::Process;
using testing_support::RunToEnd;
using testing_support::ValueOf;

class Program : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder("program");
    TinyCheckpoint{}.Write(folder_ + "/tiny");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::vector<std::string> Command(const std::vector<std::string>& sets) const {
    std::vector<std::string> argv = {std::string(ENGRAM_BIN_DIR) + "/engram-memnode"};
    std::vector<std::string> all = {"model.path=" + folder_ + "/tiny",
                                    "store.path=" + folder_ + "/store",
                                    "control.listen=127.0.0.1:0", "http.listen=127.0.0.1:0"};
    all.insert(all.end(), sets.begin(), sets.end());
    for (const std::string& set : all) argv.insert(argv.end(), {"--set", set});
    return argv;
  }

  // Exits with 1; the last line on stderr is the error, and there is only one.
  void ExpectError(const std::vector<std::string>& sets, const std::string& expected) const {
    const Finished run = RunToEnd(Command(sets), folder_, 20s);
    EXPECT_EQ(run.exit_code, 1) << run.err;
    const size_t at = run.err.find("engram-memnode: ");
    ASSERT_NE(at, std::string::npos) << run.err;
    const std::string error = run.err.substr(at);
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
    EXPECT_THAT(error, HasSubstr(expected));
    EXPECT_EQ(run.out, "");
  }

  std::string folder_;
};

TEST_F(Program, SaysWhenItIsReadyAnswersAndEndsOnSigterm) {
  Process node("node", Command({}), folder_);
  const std::string ready = node.WaitLine("ready ", 20s);
  ASSERT_NE(ready, "") << node.Stderr();
  EXPECT_EQ(ValueOf(ready, "member"), "m0");
  EXPECT_THAT(ValueOf(ready, "control"), testing::StartsWith("127.0.0.1:"));
  const std::string http = ValueOf(ready, "http");
  EXPECT_EQ(HttpGet(http, "/health"), "alive\n 200");
  EXPECT_EQ(HttpGet(http, "/ready"), "ready\n 200");
  EXPECT_THAT(HttpGet(http, "/metrics"), HasSubstr("engram_memnode_arena_bytes"));
  node.Signal(SIGTERM);
  EXPECT_EQ(node.WaitExit(10s), 0) << node.Stderr();
}

TEST_F(Program, KilledAtAnyMomentOfTheImportStartsAgain) {
  TinyCheckpoint{.vocab_size = 60'000}.Write(folder_ + "/tiny");
  for (const auto wait : {20ms, 40ms, 60ms}) {
    Process node("killed", Command({}), folder_);
    node.WaitExit(wait);  // anywhere between start and ready: each must be survived
    node.Signal(SIGKILL);
    ASSERT_TRUE(node.WaitExit(10s).has_value());
  }
  Process node("node", Command({}), folder_);
  EXPECT_NE(node.WaitLine("ready ", 30s), "") << node.Stderr();
}

TEST_F(Program, MissingModelFolder) {
  ExpectError({"model.path=/nowhere/model"}, "/nowhere/model");
  ExpectError({"model.path=", "store.path="}, "and model.path to a model's folder");
}

TEST_F(Program, ModelWithoutEngramLayers) {
  TinyCheckpoint{.layer_ids = "[]"}.Write(folder_ + "/tiny");
  ExpectError({}, "engram_layer_ids");
}

TEST_F(Program, TruncatedShard) {
  const std::string shard = folder_ + "/tiny/model.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) / 2);
  ExpectError({}, shard);
}

TEST_F(Program, MissingTable) {
  TinyCheckpoint{.left_out = "model.layers.1.engram.embed.weight"}.Write(folder_ + "/tiny");
  ExpectError({}, "model.layers.1.engram.embed.weight");
}

TEST_F(Program, TokenMapOfTheWrongSize) {
  std::filesystem::resize_file(folder_ + "/tiny/engram_token_map.bin", 100);
  ExpectError({}, "engram_token_map.bin");
}

TEST_F(Program, PortInUse) {
  Process node("node", Command({}), folder_);
  const std::string ready = node.WaitLine("ready ", 20s);
  ASSERT_NE(ready, "") << node.Stderr();
  const std::string other = "store.path=" + folder_ + "/other";
  for (const std::string key : {"control", "http"}) {
    ExpectError({other, key + ".listen=" + ValueOf(ready, key)}, ValueOf(ready, key));
  }
}

TEST_F(Program, ConfigMistakes) {
  ExpectError({"store.pth=x"}, "did you mean 'store.path'");
  ExpectError({"node.name=m7"}, "node.name 'm7' is not among cluster.members [m0]");
  ExpectError({"arena.pages=tiny"}, "arena.pages is 'tiny'");
  ExpectError({"log.level=loud"}, "log.level");
  ExpectError({"control.listen=here"}, "here");
  ExpectError({"transport.kind=ucx", "ucx.transports=nonsense"}, "nonsense");
  ExpectError({"transport.kind=nonsense"}, "expected tcp or ucx");
}

TEST_F(Program, StorePathThatIsAFile) {
  std::ofstream(folder_ + "/file") << "x";
  ExpectError({"store.path=" + folder_ + "/file"}, "store.path " + folder_ + "/file");
}

TEST_F(Program, StoreHoldingOtherTables) {
  {
    Process node("node", Command({}), folder_);
    ASSERT_NE(node.WaitLine("ready ", 20s), "") << node.Stderr();
  }
  TinyCheckpoint{.vocab_size = 500}.Write(folder_ + "/tiny");
  ExpectError({}, "use another store.path or model.version");
}

}  // namespace
}  // namespace engram::memnode
