// engramctl hash and layout through the binary, against the published code's results.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/table/golden.h"
#include "tests/support/process.h"

namespace engram::ctl {
namespace {

using table::Flatten;
using table::HashGolden;
using ::testing::HasSubstr;
using testing_support::Finished;
using testing_support::MakeTempDir;
using testing_support::RunToEnd;
using testing_support::WriteFile;

class Engramctl : public ::testing::Test {
 protected:
  Engramctl()
      : dir_(MakeTempDir(::testing::UnitTest::GetInstance()->current_test_info()->name())) {}

  // Writes the config of a vector file as a model's config.json.
  void WriteConfig(const HashGolden& golden, int64_t pad_id, bool with_vocab_size = true) {
    json::object config = {
        {"hidden_size", 64},
        {"engram_layer_ids", json::value_from(golden.config.layer_ids)},
        {"engram_max_ngram_size", golden.config.max_ngram_size},
        {"engram_vocab_size", json::value_from(golden.config.requested_vocab_sizes)},
        {"engram_n_heads", golden.config.heads_per_order},
        {"engram_head_dim", golden.config.head_dim},
        {"engram_pad_id", pad_id},
        {"engram_seed", golden.config.seed},
    };
    if (with_vocab_size)
      config["engram_compressed_vocab_size"] = golden.object.at("compressed_vocab_size");
    WriteFile(config_path(), json::serialize(config));
  }
  void WriteTinyMap(const std::string& name) {
    std::vector<int32_t> map;
    for (int32_t raw = 0; raw < 40; ++raw) map.push_back(raw / 3);
    WriteFile(dir_ + "/" + name, {reinterpret_cast<const char*>(map.data()), map.size() * 4});
  }

  std::string config_path() const { return dir_ + "/config.json"; }
  Finished Run(const std::string& command, std::vector<std::string> arguments) {
    std::vector<std::string> argv = {std::string(ENGRAM_BIN_DIR) + "/engramctl", command,
                                     "--config", config_path()};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    return RunToEnd(std::move(argv), dir_);
  }
  json::object RunJson(const std::string& command, std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const Finished run = Run(command, std::move(arguments));
    EXPECT_EQ(run.exit_code, 0) << run.err;
    Result<json::value> value = io::ParseJson(run.out, "output");
    CHECK(value.ok()) << value.status().ToString();
    return value->get_object();
  }
  void ExpectError(const Finished& run, const std::string& message) {
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_EQ(run.out, "");
    EXPECT_THAT(run.err, ::testing::StartsWith("engramctl: "));
    EXPECT_THAT(run.err, HasSubstr(message));
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  }

  static std::string Ids(const std::vector<int64_t>& ids) {
    return fmt::format("--ids={}", fmt::join(ids, ","));
  }

  std::string dir_;
};

// The rows of sequence `index` of a vector file, one list per layer.
void ExpectRows(const json::object& printed, const HashGolden& golden, size_t index) {
  const json::array& layers = printed.at("layers").get_array();
  ASSERT_EQ(layers.size(), golden.layout.layers.size());
  const auto columns = static_cast<size_t>(golden.layout.rows_per_position());
  for (size_t l = 0; l < layers.size(); ++l) {
    const table::LayerLayout& layer = golden.layout.layers[l];
    EXPECT_EQ(layers[l].at("layer_id").get_int64(), layer.layer_id);
    const json::array& positions = layers[l].at("rows").get_array();
    ASSERT_EQ(positions.size(), golden.sequences[index].size());
    EXPECT_EQ(positions[0].get_array().size(), columns);
    const std::vector<int64_t> rows = Flatten(layers[l].at("rows"));
    const std::vector<int64_t> hashes =
        Flatten(golden.OfLayer("hash_ids_before_offset_[B][T][head]", layer.layer_id).at(index));
    ASSERT_EQ(rows.size(), hashes.size());
    for (size_t i = 0; i < rows.size(); ++i)
      ASSERT_EQ(rows[i], hashes[i] + static_cast<int64_t>(layer.offsets[i % columns])) << i;
  }
}

TEST_F(Engramctl, HashOfCompressedIdsMatchesThePublishedCode) {
  for (const char* name : {"tiny", "demo_default_compressed_99092", "v41_layout_99092"}) {
    const HashGolden golden(name);
    WriteConfig(golden, golden.layout.pad_compressed);
    for (size_t i = 0; i < golden.sequences.size(); ++i)
      ExpectRows(RunJson("hash", {"--compressed", Ids(golden.sequences[i])}), golden, i);
  }
}

TEST_F(Engramctl, HashOfRawIdsUsesTheMapBesideTheConfig) {
  const HashGolden golden("tiny");
  const std::vector<int64_t> raw = Flatten(golden.object.at("input_ids").at(0));
  WriteConfig(golden, 2, /*with_vocab_size=*/false);
  ExpectError(Run("hash", {Ids(raw)}), "engram_token_map.bin");
  WriteTinyMap("elsewhere.bin");
  ExpectRows(RunJson("hash", {Ids(raw), "--map", dir_ + "/elsewhere.bin"}), golden, 0);
  WriteTinyMap("engram_token_map.bin");
  ExpectRows(RunJson("hash", {Ids(raw)}), golden, 0);
  ExpectError(Run("hash", {"--ids", "3,40"}), "token id 40");
  ExpectError(Run("hash", {Ids(raw), "--compressed-vocab-size", "15"}), "14 compressed ids");
}

TEST_F(Engramctl, TheCompressedSizeMayComeFromTheCommandLine) {
  const HashGolden golden("tiny");
  WriteConfig(golden, 0, /*with_vocab_size=*/false);
  ExpectRows(
      RunJson("hash", {"--compressed", "--compressed-vocab-size", "14", Ids(golden.sequences[1])}),
      golden, 1);
  ExpectError(Run("layout", {"--json"}), "--compressed-vocab-size");
  EXPECT_EQ(RunJson("layout", {"--compressed-vocab-size", "14"}).at("layers").get_array().size(),
            2u);
}

TEST_F(Engramctl, ADeadPositionReadsTheRowsOfPadsAndHidesWhatIsBehindIt) {
  const HashGolden golden("v41_layout_99092");
  WriteConfig(golden, golden.layout.pad_compressed);
  const auto rows = [&](const std::string& ids, const std::string& live) {
    return RunJson("hash", {"--compressed", "--ids", ids, "--live", live})
        .at("layers")
        .at(0)
        .at("rows")
        .get_array();
  };
  const json::array masked = rows("5,17,9", "1,0,1");
  EXPECT_EQ(masked[0], rows("5", "1")[0]);
  EXPECT_EQ(masked[1], rows("2", "1")[0]);  // an all-pad n-gram
  EXPECT_EQ(masked[2], rows("9", "1")[0]);
  ExpectError(Run("hash", {"--compressed", "--ids", "5,17", "--live", "1"}), "--live has 1");
  ExpectError(Run("hash", {"--compressed", "--ids", "5,17", "--live", "1,2"}), "--live holds 2");
}

TEST_F(Engramctl, ThousandsOfIdsAreTaken) {
  const HashGolden golden("tiny");
  WriteConfig(golden, 0);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 20000; ++i) ids.push_back(i % 14);
  const json::object printed = RunJson("hash", {"--compressed", Ids(ids)});
  EXPECT_EQ(printed.at("layers").at(1).at("rows").get_array().size(), 20000u);
}

TEST_F(Engramctl, LayoutMatchesThePublishedCode) {
  for (const char* name : {"tiny", "demo_default_identity_vocab_128815", "v41_layout_99092"}) {
    const HashGolden golden(name);
    WriteConfig(golden, 2);
    const json::object printed = RunJson("layout", {});
    for (const json::value& layer : printed.at("layers").get_array()) {
      const auto id = static_cast<int>(layer.at("layer_id").get_int64());
      for (const char* member : {"multipliers", "primes", "offsets"}) {
        EXPECT_TRUE(layer.at(member).at(0).is_string());
        EXPECT_EQ(Flatten(layer.at(member)), Flatten(golden.OfLayer(member, id))) << member;
      }
      EXPECT_EQ(layer.at("total_rows"), golden.OfLayer("total_rows", id));
    }
    EXPECT_EQ(printed.at("max_ngram_size").get_int64(), golden.config.max_ngram_size);
    EXPECT_EQ(printed.at("heads").get_int64(), golden.config.heads_per_order);
    EXPECT_EQ(printed.at("row_bytes").get_int64(), 2 * golden.config.head_dim);
  }
}

TEST_F(Engramctl, TheTextFormsNameEveryLayer) {
  WriteConfig(HashGolden("tiny"), 0);
  const Finished layout = Run("layout", {});
  EXPECT_THAT(layout.out, HasSubstr("layer 3: 120 rows"));
  EXPECT_THAT(layout.out, HasSubstr("530345818318534123"));
  const Finished hash = Run("hash", {"--compressed", "--ids", "1,2"});
  EXPECT_THAT(hash.out, HasSubstr("layer 0 (60 rows)"));
  EXPECT_THAT(hash.out, HasSubstr("layer 3 (120 rows)"));
}

TEST_F(Engramctl, BadInputIsOneClearLine) {
  ExpectError(Run("layout", {}), config_path());
  WriteConfig(HashGolden("tiny"), 0);
  ExpectError(Run("hash", {}), "--ids");
  ExpectError(Run("hash", {"--compressed", "--ids", "5,x"}), "5,x");
  ExpectError(Run("layout", {"--jsn"}), "--jsn");
  ExpectError(Run("lay-out", {}), "engramctl: ");
  WriteFile(config_path(), R"({"engram_layer_id": [1]})");
  ExpectError(Run("layout", {}), "nearest known: 'engram_layer_ids'");
  WriteFile(config_path(), R"({"text_config": {"ple_layer_ids": [2]}})");
  ExpectError(Run("layout", {}), "(ple_layer_ids) are served by row number");
  ExpectError(Run("hash", {"--compressed", "--ids", "5"}),
              "(ple_layer_ids) are served by row number");
  WriteFile(config_path(), R"({"hidden_size": 8})");
  ExpectError(Run("hash", {"--compressed", "--compressed-vocab-size", "9", "--ids", "1"}),
              "no Engram layers");
}

}  // namespace
}  // namespace engram::ctl
