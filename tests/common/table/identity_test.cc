// Identities: unchanged by JSON, and any difference is named.
#include "common/table/identity.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/common/table/golden.h"

namespace engram::table {
namespace {

using ::testing::HasSubstr;

TableIdentity Tiny() {
  TableIdentity identity = MakeIdentity(HashGolden("tiny").layout, "tiny-7", "1");
  identity.content_digest = "ab12";
  return identity;
}

TEST(Identity, SurvivesJsonText) {
  const TableIdentity identity = Tiny();
  const std::string text = json::serialize(ToJson(identity));
  EXPECT_THAT(text, HasSubstr("\"530345818318534123\""));  // a string: beyond 2^53
  const Result<json::value> parsed = io::ParseJson(text, "test");
  ASSERT_TRUE(parsed.ok());
  const Result<TableIdentity> back = IdentityFromJson(parsed->get_object());
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_TRUE(CheckSameIdentity(identity, *back, "itself").ok());
  EXPECT_EQ(json::serialize(ToJson(*back)), text);
}

TEST(Identity, SurvivesJsonThatNeverWasText) {
  const Result<TableIdentity> back = IdentityFromJson(ToJson(Tiny()));
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_TRUE(CheckSameIdentity(Tiny(), *back, "itself").ok());
}

TEST(Identity, TheFirstDifferingFieldIsNamedWithBothValues) {
  const std::vector<std::pair<std::string, std::function<void(TableIdentity&)>>> changes = {
      {"model", [](auto& i) { i.model = "tiny-8"; }},
      {"version", [](auto& i) { i.version = "1.1"; }},
      {"max_ngram_size", [](auto& i) { i.max_ngram_size = 4; }},
      {"heads_per_order", [](auto& i) { i.heads_per_order = 3; }},
      {"head_dim", [](auto& i) { i.head_dim = 5; }},
      {"row_encoding", [](auto& i) { i.row_encoding = "fp8_e4m3_ue8m0"; }},
      {"compressed_vocab_size", [](auto& i) { i.compressed_vocab_size = 15; }},
      {"pad_compressed", [](auto& i) { i.pad_compressed = 1; }},
      {"layers count", [](auto& i) { i.layers.pop_back(); }},
      {"layers[1].layer_id", [](auto& i) { i.layers[1].layer_id = 4; }},
      {"layers[0].total_rows", [](auto& i) { i.layers[0].total_rows = 61; }},
      {"layers[1].multipliers[2]", [](auto& i) { i.layers[1].multipliers[2] += 2; }},
      {"layers[0].primes count", [](auto& i) { i.layers[0].primes.pop_back(); }},
      {"layers[0].primes[3]", [](auto& i) { i.layers[0].primes[3] = 97; }},
      {"content_digest", [](auto& i) { i.content_digest = "cd34"; }},
  };
  for (const auto& [field, change] : changes) {
    TableIdentity other = Tiny();
    change(other);
    const Status status = CheckSameIdentity(Tiny(), other, "memory node m0");
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << field;
    EXPECT_THAT(status.message(), HasSubstr(fmt::format("differs at {}:", field)));
    EXPECT_THAT(status.message(), HasSubstr("memory node m0"));
  }
  TableIdentity both = Tiny();
  both.head_dim = 5;
  both.content_digest = "";
  EXPECT_THAT(CheckSameIdentity(Tiny(), both, "m0").message(), HasSubstr("\"4\", m0 has \"5\""));
}

TEST(Identity, UnknownVersionAndDigestMatchAny) {
  TableIdentity other = Tiny();
  other.version.clear();
  other.content_digest.clear();
  EXPECT_TRUE(CheckSameIdentity(Tiny(), other, "m0").ok());
  EXPECT_TRUE(CheckSameIdentity(other, Tiny(), "m0").ok());
}

TEST(Identity, JsonThatIsNoIdentityIsRefused) {
  const std::vector<std::pair<std::string, std::function<void(json::object&)>>> changes = {
      {"model", [](auto& o) { o.erase("model"); }},
      {"head_dim", [](auto& o) { o["head_dim"] = -1; }},
      {"heads_per_order", [](auto& o) { o["heads_per_order"] = 65; }},
      {"compressed_vocab_size", [](auto& o) { o["compressed_vocab_size"] = "14x"; }},
      {"compressed_vocab_size", [](auto& o) { o["compressed_vocab_size"] = "-1"; }},
      {"pad_compressed", [](auto& o) { o["pad_compressed"] = 0; }},
      {"layers", [](auto& o) { o["layers"] = json::array(kEngramLayersMax + 1, 0); }},
      {"layers", [](auto& o) { o["layers"] = json::array(1, 0); }},
      {"primes", [](auto& o) { o["layers"].at(0).as_object()["primes"] = "11"; }},
      {"multipliers", [](auto& o) { o["layers"].at(0).as_object()["multipliers"] = {1}; }},
      {"content_digest", [](auto& o) { o["content_digest"] = nullptr; }},
  };
  for (const auto& [field, change] : changes) {
    json::object object = ToJson(Tiny());
    change(object);
    const Status status = IdentityFromJson(object).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << field;
    EXPECT_THAT(status.message(), HasSubstr(fmt::format("\"{}\"", field)));
  }
}

}  // namespace
}  // namespace engram::table
