// The engram_* keys: read wherever they stand, refused when they cannot be meant.
#include "common/table/engram_config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace engram::table {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kV41 = R"({
  "engram_layer_ids": [1, 14], "engram_max_ngram_size": 4, "engram_vocab_size": 16000000,
  "engram_n_heads": 8, "engram_head_dim": 256, "engram_pad_token_id": 3,
  "engram_compressed_vocab_size": 99092, "engram_num_embeddings": [384006168, 384016682]})";

json::object Parse(std::string_view text) {
  Result<json::value> value = io::ParseJson(text, "test");
  CHECK(value.ok()) << value.status().ToString();
  return value->get_object();
}

// kV41 with one key changed; the value is JSON text.
Result<EngramConfig> With(std::string_view key, std::string_view value) {
  json::object object = Parse(kV41);
  object[key] = *io::ParseJson(value, "test");
  return ParseEngramConfig(object);
}

void ExpectRefused(std::string_view key, std::string_view value, std::string_view why) {
  const Status status = With(key, value).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << key << " " << value;
  EXPECT_THAT(status.message(), HasSubstr(fmt::format("'{}'", key)));
  EXPECT_THAT(status.message(), HasSubstr(std::string(why)));
}

void ExpectIsV41(const Result<EngramConfig>& config) {
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->layer_ids, (std::vector<int>{1, 14}));
  EXPECT_EQ(config->rows_per_position(), 24);
  EXPECT_EQ(config->embedding_width(), 6144);
  EXPECT_EQ(config->requested_vocab_sizes, std::vector<uint64_t>(3, 16000000));
  EXPECT_EQ(config->pad_id, 3);
  EXPECT_EQ(config->compressed_vocab_size, 99092u);
  EXPECT_EQ(config->declared_rows, (std::vector<uint64_t>{384006168, 384016682}));
  EXPECT_TRUE(config->declared_rows_per_layer);
  EXPECT_EQ(config->variant, Variant::kPaper);
}

TEST(EngramConfig, ReadsKeysAtTopLevelOrUnderTextConfig) {
  ExpectIsV41(ParseEngramConfig(Parse(kV41)));
  json::object nested;
  nested["hidden_size"] = 64;
  nested["text_config"] = Parse(kV41);
  ExpectIsV41(ParseEngramConfig(nested));
  nested["engram_head_dim"] = 256;  // the same in both places is no contradiction
  ExpectIsV41(ParseEngramConfig(nested));
  nested["engram_head_dim"] = 128;
  EXPECT_THAT(ParseEngramConfig(nested).status().message(), HasSubstr("engram_head_dim"));
}

TEST(EngramConfig, OptionalKeysAreRead) {
  EXPECT_EQ(With("engram_vocab_size", "[5, 6, 7]")->requested_vocab_sizes,
            (std::vector<uint64_t>{5, 6, 7}));
  EXPECT_EQ(With("engram_variant", "\"v41\"")->variant, Variant::kV41);
  EXPECT_EQ(With("engram_variant", "null")->variant, Variant::kPaper);
  EXPECT_EQ(With("engram_seed", "9223372036854775807")->seed, uint64_t{INT64_MAX});
  EXPECT_EQ(With("engram_conv_kernel", "5")->conv_kernel, 5);
  EXPECT_EQ(With("engram_norm_eps", "1e-6")->norm_eps, 1e-6);
  EXPECT_EQ(With("engram_num_embeddings", "7")->declared_rows, std::vector<uint64_t>{7});
  EXPECT_EQ(With("engram_pad_id", "3")->pad_id, 3);
}

TEST(EngramConfig, NoEngramKeysIsAModelWithoutMemory) {
  EXPECT_TRUE(ParseEngramConfig(Parse(R"({"hidden_size": 8})"))->layer_ids.empty());
  EXPECT_TRUE(ParseEngramConfig(Parse(R"({"engram_layer_ids": []})"))->layer_ids.empty());
  EXPECT_TRUE(ParseEngramConfig(Parse(R"({"engram_seed": null})"))->layer_ids.empty());
}

TEST(EngramConfig, EngramKeysWithoutLayersAreAContradiction) {
  ExpectRefused("engram_layer_ids", "[]", "is [], but 'engram_num_embeddings' is there");
  ExpectRefused("engram_layer_ids", "null", "is null, but");
  json::object object = Parse(kV41);
  object.erase("engram_layer_ids");
  EXPECT_THAT(ParseEngramConfig(object).status().message(),
              HasSubstr("'engram_layer_ids' is missing, but 'engram_num_embeddings'"));
  json::object nested;
  nested["text_config"] = Parse(R"({"engram_head_dim": 8})");
  EXPECT_THAT(ParseEngramConfig(nested).status().message(),
              HasSubstr("'engram_head_dim' is there"));
}

TEST(EngramConfig, AnAbsentPadIsRefused) {
  json::object object = Parse(kV41);
  object.erase("engram_pad_token_id");
  EXPECT_THAT(ParseEngramConfig(object).status().message(),
              HasSubstr("'engram_pad_token_id' is missing"));
  object["engram_pad_id"] = 3;
  ExpectIsV41(ParseEngramConfig(object));
}

TEST(EngramConfig, AnAbsentSeedIsRefusedInOurOwnConfigs) {
  json::object object = Parse(kV41);
  object["model_type"] = "deepseek_v41";  // whose configs have none
  ExpectIsV41(ParseEngramConfig(object));
  object["model_type"] = "engram_v3";
  EXPECT_THAT(ParseEngramConfig(object).status().message(), HasSubstr("'engram_seed' is missing"));
  object["engram_seed"] = nullptr;
  EXPECT_THAT(ParseEngramConfig(object).status().message(), HasSubstr("'engram_seed' is missing"));
  object["engram_seed"] = 0;
  ExpectIsV41(ParseEngramConfig(object));
}

TEST(EngramConfig, AnUnknownKeyThatIsNullIsAbsent) {
  EXPECT_TRUE(With("engram_extra", "null").ok());
}

TEST(EngramConfig, TwoKindsOfLayersOrTwoListsOfThemAreRefused) {
  EXPECT_TRUE(With("ple_layer_ids", "[]").ok());
  EXPECT_THAT(With("ple_layer_ids", "[2]").status().message(),
              HasSubstr("'ple_layer_ids': [2] is not possible beside engram_layer_ids"));
  json::object ple = Parse(R"({"ple_layer_ids": [2], "text_config": {"ple_layer_ids": [3]}})");
  EXPECT_THAT(ParseEngramConfig(ple).status().message(), HasSubstr("what text_config says ([3])"));
}

TEST(EngramConfig, AnUnknownKeyIsRefusedWithTheNearestName) {
  ExpectRefused("engram_head_dims", "8", "'engram_head_dim'");
  json::object nested;
  nested["text_config"] = Parse(R"({"engram_sed": 1})");
  EXPECT_THAT(ParseEngramConfig(nested).status().message(), HasSubstr("'engram_seed'"));
}

TEST(EngramConfig, MissingKeysAreNamed) {
  for (const char* key :
       {"engram_max_ngram_size", "engram_vocab_size", "engram_n_heads", "engram_head_dim"}) {
    json::object object = Parse(kV41);
    object.erase(key);
    EXPECT_THAT(ParseEngramConfig(object).status().message(), HasSubstr(key));
  }
}

TEST(EngramConfig, ValuesOutsideTheLimitsAreRefused) {
  ExpectRefused("engram_max_ngram_size", "1", "from 2 to 8");
  ExpectRefused("engram_max_ngram_size", "9", "9 is not");
  ExpectRefused("engram_n_heads", "65", "from 1 to 64");
  ExpectRefused("engram_head_dim", "0", "0 is not");
  ExpectRefused("engram_head_dim", "8.5", "8.5E0 is not");
  ExpectRefused("engram_vocab_size", "0", "0 is not");
  ExpectRefused("engram_vocab_size", "[5, 6]", "3 (one per order 2..4");
  ExpectRefused("engram_vocab_size", "\"5\"", "an integer");
  ExpectRefused("engram_layer_ids", "[-1]", "-1 is not");
  ExpectRefused("engram_layer_ids", "[1, 1]", "1 is there twice");
  ExpectRefused("engram_layer_ids", "1", "a list");
  ExpectRefused("engram_num_embeddings", "[1]", "one number per Engram layer (2)");
  ExpectRefused("engram_pad_token_id", "-1", "-1 is not");
  ExpectRefused("engram_seed", "9223372036854775808", "an integer");
  ExpectRefused("engram_compressed_vocab_size", "0", "0 is not");
  ExpectRefused("engram_variant", "\"v40\"", "\"paper\" or \"v41\"");
  ExpectRefused("engram_conv_kernel", "0", "from 1 to 64");
  ExpectRefused("engram_norm_eps", "-1", "0 to 1");
}

TEST(EngramConfig, TwoDifferentPadIdsAreRefused) {
  EXPECT_THAT(With("engram_pad_id", "2").status().message(),
              HasSubstr("3 is not engram_pad_id, 2"));
}

TEST(EngramConfig, AMissingFileIsNamed) {
  EXPECT_THAT(LoadEngramConfig("/nonexistent/config.json").status().message(),
              HasSubstr("/nonexistent/config.json"));
}

}  // namespace
}  // namespace engram::table
