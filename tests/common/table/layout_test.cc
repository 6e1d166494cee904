// Multipliers, primes, offsets and row counts against the published code's results.
#include "common/table/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/table/numpy_rng.h"
#include "common/table/prime.h"
#include "tests/common/table/golden.h"

namespace engram::table {
namespace {

using ::testing::HasSubstr;

std::string Decimal(NumpyPcg64::Uint128 value) {
  std::string digits;
  for (; value != 0; value /= 10)
    digits.insert(digits.begin(), static_cast<char>('0' + value % 10));
  return digits.empty() ? "0" : digits;
}

EngramConfig SmallConfig() {
  EngramConfig config;
  config.layer_ids = {0, 3};
  config.max_ngram_size = 3;
  config.heads_per_order = 2;
  config.head_dim = 4;
  config.requested_vocab_sizes = {11, 13};
  config.seed = 5;
  return config;  // tables of 60 and 120 rows
}

Status LayoutStatus(const EngramConfig& config, uint64_t vocab = 14, int64_t pad = 0,
                    RowEncoding encoding = RowEncoding::kBf16) {
  return MakeLayout(config, vocab, pad, encoding).status();
}

TEST(NumpyRng, InternalsMatchNumpy) {
  const json::object golden = ReadGolden("rng_multipliers");
  const json::array& cases = golden.at("rng_internals").get_array();
  ASSERT_EQ(cases.size(), 4u);
  for (const json::value& value : cases) {
    const json::object& expected = value.get_object();
    const auto seed = static_cast<uint64_t>(expected.at("base_seed").get_int64());
    const std::array<uint64_t, 4> words = SeedSequenceState(seed);
    const json::array& expected_words =
        expected.at("seedsequence_generate_state_4x_u64").get_array();
    for (size_t i = 0; i < words.size(); ++i)
      EXPECT_EQ(std::to_string(words[i]), expected_words[i].get_string()) << seed;
    NumpyPcg64 random(seed);
    EXPECT_EQ(Decimal(random.state()), expected.at("pcg64_state").get_string());
    EXPECT_EQ(Decimal(random.increment()), expected.at("pcg64_inc").get_string());
    for (const json::value& raw : expected.at("first4_raw_u64").get_array())
      EXPECT_EQ(std::to_string(random.NextU64()), raw.get_string()) << seed;
  }
}

TEST(NumpyRng, AllMultiplierRowsMatchNumpy) {
  const json::object golden = ReadGolden("rng_multipliers");
  const json::array& rows = golden.at("multipliers").get_array();
  ASSERT_EQ(rows.size(), 70u);
  for (const json::value& value : rows) {
    const json::object& row = value.get_object();
    const auto seed = static_cast<uint64_t>(row.at("seed").get_int64());
    const auto layer_id = static_cast<int>(row.at("layer_id").get_int64());
    const auto vocab = static_cast<uint64_t>(row.at("compressed_vocab").get_int64());
    const std::vector<int64_t> expected = Flatten(row.at("multipliers_first5"));
    EXPECT_EQ(LayerMultipliers(seed, layer_id, vocab, 5), expected) << layer_id << " " << vocab;
    const std::vector<int64_t> first_three(expected.begin(), expected.begin() + 3);
    EXPECT_EQ(LayerMultipliers(seed, layer_id, vocab, 3), first_three) << "not prefix-stable";
  }
}

TEST(NumpyRng, RejectionKeepsDrawsInRange) {
  NumpyPcg64 random(1);
  const uint64_t bound = (uint64_t{3} << 62) + 1;  // a quarter of all draws is rejected
  for (int i = 0; i < 1000; ++i) EXPECT_LT(random.NextBelow(bound), bound);
}

TEST(Prime, AgreesWithTrialDivision) {
  for (uint64_t value = 0; value < 20000; ++value) {
    bool prime = value >= 2;
    for (uint64_t d = 2; d * d <= value; ++d) prime = prime && value % d != 0;
    ASSERT_EQ(IsPrime(value), prime) << value;
  }
}

TEST(Prime, LargeAndDeceptiveValues) {
  EXPECT_TRUE(IsPrime(18446744073709551557ull));   // the largest below 2^64
  EXPECT_FALSE(IsPrime(18446744073709551615ull));  // 2^64 - 1
  EXPECT_FALSE(IsPrime(3215031751ull));            // strong pseudoprime to 2, 3, 5, 7
  EXPECT_FALSE(IsPrime(3825123056546413051ull));   // to 2 .. 23
  EXPECT_FALSE(IsPrime(4294967291ull * 4294967279ull));
}

class LayoutGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(LayoutGolden, MatchesThePublishedCode) {
  const HashGolden golden(GetParam());
  for (const LayerLayout& layer : golden.layout.layers) {
    const auto expect = [&](const char* member, const auto& ours) {
      const std::vector<int64_t> flat(ours.begin(), ours.end());
      EXPECT_EQ(flat, Flatten(golden.OfLayer(member, layer.layer_id))) << member;
    };
    expect("multipliers", layer.multipliers);
    expect("primes", layer.primes);
    expect("offsets", layer.offsets);
    EXPECT_EQ(layer.total_rows,
              static_cast<uint64_t>(golden.OfLayer("total_rows", layer.layer_id).get_int64()));
  }
  EXPECT_EQ(golden.layout.layers.size(), golden.config.layer_ids.size());
}

INSTANTIATE_TEST_SUITE_P(All, LayoutGolden,
                         ::testing::Values("tiny", "demo_default_compressed_99092",
                                           "demo_default_identity_vocab_128815",
                                           "v41_layout_99092"));

TEST(Layout, PublishedRowCountsOfThePapersModels) {
  EngramConfig config = SmallConfig();
  config.layer_ids = {1, 14};
  config.heads_per_order = 8;
  config.seed = 0;
  for (const auto& [requested, first, second] :
       {std::tuple{2262400, 36199972, 36204260}, std::tuple{7239680, 115837464, 115841428}}) {
    config.requested_vocab_sizes.assign(2, static_cast<uint64_t>(requested));
    const Result<TableLayout> layout = MakeLayout(config, 99092, 2, RowEncoding::kBf16);
    ASSERT_TRUE(layout.ok());
    EXPECT_EQ(layout->layers[0].total_rows, static_cast<uint64_t>(first));
    EXPECT_EQ(layout->layers[1].total_rows, static_cast<uint64_t>(second));
  }
}

TEST(Layout, RowBytesOfBothEncodings) {
  EXPECT_EQ((RowFormat{RowEncoding::kFp8Scaled, 256}.row_bytes()), 264u);
  EXPECT_EQ((RowFormat{RowEncoding::kBf16, 80}.row_bytes()), 160u);
}

TEST(Layout, AnotherCompressedSizeThanTheConfigsIsRefused) {
  EngramConfig config = SmallConfig();
  config.compressed_vocab_size = 15;
  const Status status = LayoutStatus(config);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("14 ids"));
  EXPECT_THAT(status.message(), HasSubstr("is 15"));
}

TEST(Layout, RefusesWhatCannotBeAddressed) {
  EXPECT_THAT(LayoutStatus(SmallConfig(), 14, 14).message(), HasSubstr("pad id 14"));
  EXPECT_THAT(LayoutStatus(SmallConfig(), 14, -1).message(), HasSubstr("pad id -1"));
  EXPECT_THAT(LayoutStatus(SmallConfig(), 0).message(), HasSubstr("0 ids"));
  EXPECT_FALSE(LayoutStatus(SmallConfig(), kCompressedVocabMax + 1).ok());
  EXPECT_TRUE(LayoutStatus(SmallConfig(), kCompressedVocabMax).ok());
  EXPECT_THAT(LayoutStatus(SmallConfig(), 14, 0, RowEncoding::kFp8Scaled).message(),
              HasSubstr("multiple of 32"));
  EXPECT_THAT(LayoutStatus(EngramConfig()).message(), HasSubstr("engram_layer_ids"));
}

TEST(Layout, DeclaredRowsMustAgree) {
  EngramConfig config = SmallConfig();
  config.declared_rows_per_layer = true;
  config.declared_rows = {60, 120};
  EXPECT_TRUE(LayoutStatus(config).ok());
  config.declared_rows = {120, 60};
  EXPECT_THAT(LayoutStatus(config).message(), HasSubstr("[60, 120] rows"));
  config.declared_rows_per_layer = false;
  for (const uint64_t agreeing : {60u, 120u, 180u, 11u, 13u, 48u}) {
    config.declared_rows = {agreeing};
    EXPECT_TRUE(LayoutStatus(config).ok()) << agreeing;
  }
  config.declared_rows = {61};
  EXPECT_THAT(LayoutStatus(config).message(), HasSubstr("engram_num_embeddings is 61"));
}

}  // namespace
}  // namespace engram::table
