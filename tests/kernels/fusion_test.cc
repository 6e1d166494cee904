// Engram fusion, both variants, against the float64 vectors of tests/golden/fusion_float64.json.
#include <gtest/gtest.h>

#include "common/io/json.h"
#include "kernels/ops.h"
#include "tests/kernels/random.h"

namespace engram::kernels {
namespace {

constexpr int64_t kTokens = 14, kStreams = 2, kHidden = 6, kWidth = 8, kKernel = 4, kDilation = 3;
// Values are of order 1, sums have at most 8 terms before the gate; the square root in the gate
// magnifies the error of a dot product near 0 to at most sqrt(1e-6 + e) - 1e-3 < 500 e.
constexpr double kTolerance = 500 * 8 * kEps;

void Flatten(const json::value& value, std::vector<float>& out) {
  if (value.is_array()) {
    for (const json::value& element : value.get_array()) Flatten(element, out);
  } else {
    out.push_back(value.is_bool() ? (value.get_bool() ? 1.0f : 0.0f) : value.to_number<float>());
  }
}

class Fusion : public testing::Test {
 protected:
  void SetUp() override {
    auto parsed =
        io::ParseJsonFile(std::string(ENGRAM_SOURCE_DIR) + "/tests/golden/fusion_float64.json");
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    golden_ = *parsed;
  }
  std::vector<float> Get(const char* group, const char* key) const {
    std::vector<float> out;
    Flatten(golden_.at(group).at(key), out);
    return out;
  }
  // x [T, kWidth] * w^T (+ b)
  static std::vector<float> Project(std::span<const float> x, std::span<const float> w,
                                    std::span<const float> b) {
    const auto rows = static_cast<int64_t>(w.size()) / kWidth;
    const auto tokens = static_cast<int64_t>(x.size()) / kWidth;
    std::vector<float> y(static_cast<size_t>(tokens * rows));
    LinearRows({x.data(), tokens, kWidth}, MatrixOf(w, rows, kWidth), y.data(), rows);
    if (!b.empty()) AddBias(y, b);
    return y;
  }
  json::value golden_;
};

class PaperFusionTest : public Fusion {
 protected:
  void SetUp() override {
    Fusion::SetUp();
    embeddings_ = Get("inputs", "emb");
    hidden_ = Get("inputs", "hidden");
    value_ = Project(embeddings_, Get("demo", "Wv"), Get("demo", "bv"));
    keys_ = Project(embeddings_, Get("demo", "Wk"), Get("demo", "bk"));  // [T, G * D]
    key_norm_ = Get("demo", "key_norm_w");
    query_norm_ = Get("demo", "query_norm_w");
    conv_norm_ = Get("demo", "conv_norm_w");
    conv_ = Get("demo", "conv_w_[G*D][1][K]_last_tap_is_current_token");
    fusion_ = {key_norm_, query_norm_, conv_norm_, conv_, kStreams, kKernel, kDilation};
  }

  // Y of all positions, computed `chunk` positions at a time.
  std::vector<float> Run(int64_t chunk, std::span<const uint8_t> live) const {
    std::vector<float> h = hidden_;
    Workspace memory;
    std::vector<float> history(static_cast<size_t>(fusion_.history_size()), 0.0f);
    for (int64_t t = 0; t < kTokens; t += chunk) {
      const auto n = static_cast<size_t>(std::min(chunk, kTokens - t));
      const auto at = static_cast<size_t>(t);
      constexpr size_t kChannels = kStreams * kHidden;
      FusePaper(memory, fusion_, std::span(keys_).subspan(at * kChannels, n * kChannels),
                std::span(value_).subspan(at * kHidden, n * kHidden),
                live.empty() ? live : live.subspan(at, n), history,
                std::span(h).subspan(at * kChannels, n * kChannels));
    }
    for (size_t i = 0; i < h.size(); ++i) h[i] -= hidden_[i];
    return h;
  }

  std::vector<float> embeddings_, hidden_, value_, keys_, key_norm_, query_norm_, conv_norm_, conv_;
  PaperFusion fusion_;
};

TEST_F(PaperFusionTest, EqualsTheFloat64Vectors) {
  const std::vector<float> y = Run(kTokens, {});
  const std::vector<float> expected = Get("demo", "output_without_residual");
  ASSERT_EQ(y.size(), expected.size());
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i], kTolerance) << i;
}

TEST_F(PaperFusionTest, ChunksGiveTheSameBitsAsTheWhole) {
  const std::vector<float> whole = Run(kTokens, {});
  for (const int64_t chunk : {1, 2, 5, 9, 13})
    EXPECT_EQ(Run(chunk, {}), whole) << "chunk " << chunk;
}

TEST_F(PaperFusionTest, ADeadPositionAddsOnlyItsConvolvedPast) {
  std::vector<uint8_t> live(kTokens, 1);
  live[0] = 0;
  live[6] = 0;
  const std::vector<float> y = Run(kTokens, live);
  const std::vector<float> all = Run(kTokens, {});
  for (size_t i = 0; i < kStreams * kHidden; ++i) EXPECT_EQ(y[i], 0.0f);  // no past at position 0
  for (size_t t = 1; t < 3; ++t) {  // one and two back are not multiples of the dilation
    for (size_t i = 0; i < kStreams * kHidden; ++i) {
      EXPECT_EQ(y[t * kStreams * kHidden + i], all[t * kStreams * kHidden + i]);
    }
  }
  EXPECT_NE(y[6 * kStreams * kHidden], all[6 * kStreams * kHidden]);
  EXPECT_EQ(Run(5, live), y);
}

TEST_F(Fusion, V41EqualsTheFloat64VectorsWithDeadPositionsUntouched) {
  const std::vector<float> key_value = Project(Get("inputs", "emb"), Get("v41", "wkv"), {});
  std::vector<float> qk = Get("v41", "q_weight");
  const std::vector<float> k = Get("v41", "k_weight");
  for (size_t i = 0; i < qk.size(); ++i) qk[i] *= k[i];
  std::vector<uint8_t> live;
  for (const float flag : Get("v41", "live")) live.push_back(flag != 0);
  ASSERT_EQ(std::count(live.begin(), live.end(), 0) > 0, true);
  const std::vector<float> hidden = Get("inputs", "hidden");
  std::vector<float> h = hidden;
  FuseV41(key_value, qk, kStreams, 1e-20f, live, h);
  const std::vector<float> expected = Get("v41", "output_with_residual");
  for (size_t i = 0; i < h.size(); ++i) {
    EXPECT_NEAR(h[i], expected[i], kTolerance) << i;
    if (live[i / (kStreams * kHidden)] == 0) {
      EXPECT_EQ(h[i], hidden[i]);
    }
  }
}

}  // namespace
}  // namespace engram::kernels
