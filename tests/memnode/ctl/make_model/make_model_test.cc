// make-model: everything a reader of the folder expects is there, and the seed decides every byte.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "common/base/sha256.h"
#include "common/checkpoint/safetensors.h"
#include "common/io/json.h"
#include "common/table/engram_config.h"
#include "common/table/layout.h"
#include "common/table/vocab_map.h"
#include "common/text/tokenizer.h"
#include "memnode/ctl/make_model/model_maker.h"

namespace engram::ctl {
namespace {

namespace fs = std::filesystem;
using table::Variant;
using testing::HasSubstr;

class MakeModelTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = fs::path(testing::TempDir()) / (std::string("make_model_") + info->name());
    fs::remove_all(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }

  MakeModelOptions Options(const std::string& name, Variant variant, uint64_t seed) const {
    MakeModelOptions options;
    options.variant = variant;
    options.seed = seed;
    options.out = (directory_ / name).string();
    return options;
  }
  std::string Make(const std::string& name, Variant variant, uint64_t seed) const {
    const MakeModelOptions options = Options(name, variant, seed);
    const Status made = MakeModel(options);
    EXPECT_TRUE(made.ok()) << made.ToString();
    return options.out;
  }

  fs::path directory_;
};

std::map<std::string, std::string> Digests(const std::string& folder) {
  std::map<std::string, std::string> digests;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::ostringstream content;
    content << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    Sha256 sha;
    sha.Update(content.view());
    digests[entry.path().filename()] = ToHex(sha.Finish());
  }
  return digests;
}

using Shapes = std::map<std::string, std::vector<uint64_t>>;

void ExpectSwiGlu(Shapes& shapes, const std::string& name, uint64_t width) {
  shapes[name + ".gate_proj.weight"] = {width, 64};
  shapes[name + ".up_proj.weight"] = {width, 64};
  shapes[name + ".down_proj.weight"] = {64, width};
}

void ExpectLayer(Shapes& shapes, int layer) {
  const std::string p = fmt::format("model.layers.{}.", layer);
  for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) {
    shapes[p + norm] = {64};
  }
  shapes[p + "self_attn.q_proj.weight"] = {4 * (16 + 16), 64};
  shapes[p + "self_attn.kv_a_proj_with_mqa.weight"] = {32 + 16, 64};
  shapes[p + "self_attn.kv_a_layernorm.weight"] = {32};
  shapes[p + "self_attn.kv_b_proj.weight"] = {4 * (16 + 16), 32};
  shapes[p + "self_attn.o_proj.weight"] = {64, 4 * 16};
  for (const std::string hc : {"attn_hc.", "mlp_hc."}) {
    shapes[p + hc + "norm.weight"] = {256};
    shapes[p + hc + "phi_pre.weight"] = {4, 256};
    shapes[p + hc + "phi_post.weight"] = {4, 256};
    shapes[p + hc + "phi_res.weight"] = {16, 256};
    for (const char* alpha : {"alpha_pre", "alpha_post", "alpha_res"}) shapes[p + hc + alpha] = {1};
    shapes[p + hc + "b_pre"] = {4};
    shapes[p + hc + "b_post"] = {4};
    shapes[p + hc + "b_res"] = {4, 4};
  }
  if (layer == 0) return ExpectSwiGlu(shapes, p + "mlp", 128);
  shapes[p + "mlp.gate.weight"] = {8, 64};
  shapes[p + "mlp.gate.e_score_correction_bias"] = {8};
  ExpectSwiGlu(shapes, p + "mlp.shared_experts", 32);
  for (int e = 0; e < 8; ++e) ExpectSwiGlu(shapes, fmt::format("{}mlp.experts.{}", p, e), 32);
}

void ExpectEngram(Shapes& shapes, int layer, Variant variant, uint64_t rows) {
  const std::string p = fmt::format("model.layers.{}.engram.", layer);
  shapes[p + "embed.weight"] = {rows, 32};
  if (variant == Variant::kV41) {
    shapes[p + "embed.scale"] = {rows, 1};
    shapes[p + "wkv.weight"] = {5 * 64, 3 * 4 * 32};
    shapes[p + "q_weight"] = {4, 64};
    shapes[p + "k_weight"] = {4, 64};
    return;
  }
  shapes[p + "value_proj.weight"] = {64, 2 * 4 * 32};
  shapes[p + "value_proj.bias"] = {64};
  shapes[p + "conv.weight"] = {256, 1, 4};
  for (int g = 0; g < 4; ++g) {
    shapes[fmt::format("{}key_proj.{}.weight", p, g)] = {64, 2 * 4 * 32};
    shapes[fmt::format("{}key_proj.{}.bias", p, g)] = {64};
    for (const char* norm : {"key_norm", "query_norm", "conv_norm"}) {
      shapes[fmt::format("{}{}.{}.weight", p, norm, g)] = {64};
    }
  }
}

// The layout as a reader of the folder computes it.
table::TableLayout LayoutOf(const std::string& folder) {
  const auto config = table::LoadEngramConfig(folder + "/config.json");
  CHECK(config.ok()) << config.status().ToString();
  const auto map =
      table::VocabMap::Load(folder + "/engram_token_map.bin", 768, config->compressed_vocab_size);
  CHECK(map.ok()) << map.status().ToString();
  const auto encoding =
      config->variant == Variant::kV41 ? table::RowEncoding::kFp8Scaled : table::RowEncoding::kBf16;
  auto layout =
      table::MakeLayout(*config, map->compressed_size(), *map->Compress(config->pad_id), encoding);
  CHECK(layout.ok()) << layout.status().ToString();
  return std::move(*layout);
}

class MakeModelVariants : public MakeModelTest, public testing::WithParamInterface<Variant> {
 protected:
  void SetUp() override {
    directory_ = fs::path(testing::TempDir()) /
                 fmt::format("make_model_variant_{}_{}", table::VariantName(GetParam()), getpid());
    fs::remove_all(directory_);
  }
};

TEST_P(MakeModelVariants, HoldsEveryTensorOfTheArchitectureAndNoOther) {
  const std::string folder = Make("m", GetParam(), 3);
  const auto checkpoint = io::Checkpoint::Open(folder);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  const table::TableLayout layout = LayoutOf(folder);
  Shapes expected = {{"model.embed_tokens.weight", {768, 64}},
                     {"model.norm.weight", {64}},
                     {"lm_head.weight", {768, 64}}};
  for (int layer = 0; layer < 4; ++layer) ExpectLayer(expected, layer);
  ASSERT_EQ(layout.layers.size(), 2u);
  for (const table::LayerLayout& layer : layout.layers) {
    ExpectEngram(expected, layer.layer_id, GetParam(), layer.total_rows);
  }
  Shapes found;
  for (const auto& [name, info] : checkpoint->tensors()) found[name] = info.shape;
  EXPECT_EQ(found, expected);
}

TEST_P(MakeModelVariants, TablesAreAloneInTheLastShards) {
  const std::string folder = Make("m", GetParam(), 3);
  const auto checkpoint = io::Checkpoint::Open(folder);
  ASSERT_TRUE(checkpoint.ok());
  std::map<uint32_t, std::set<bool>> is_table;  // by file
  for (const auto& [name, info] : checkpoint->tensors()) {
    is_table[info.file_index].insert(name.find("engram.embed.") != std::string::npos);
  }
  ASSERT_GT(is_table.size(), 3u) << "more than one backbone shard, then two tables";
  const uint32_t first_table = static_cast<uint32_t>(is_table.size()) - 2;
  for (const auto& [file, kinds] : is_table) {
    EXPECT_EQ(kinds, std::set<bool>{file >= first_table}) << "file " << file;
  }
}

TEST_P(MakeModelVariants, ValuesAreFiniteAndOfTheRightSize) {
  const auto checkpoint = io::Checkpoint::Open(Make("m", GetParam(), 3));
  ASSERT_TRUE(checkpoint.ok());
  for (const auto& [name, info] : checkpoint->tensors()) {
    const auto bytes = checkpoint->Get(name)->bytes;
    const size_t step = SizeOf(*info.dtype);
    double sum_of_squares = 0;
    for (size_t at = 0; at < bytes.size(); at += step) {
      float value = 0;
      uint16_t half = 0;
      std::memcpy(&half, &bytes[at], std::min<size_t>(step, 2));
      if (info.dtype == DType::kF32) std::memcpy(&value, &bytes[at], 4);
      if (info.dtype == DType::kBf16) value = ToFloat(Bf16{half});
      if (info.dtype == DType::kF8E4m3) value = ToFloat(Fp8E4m3{static_cast<uint8_t>(half)});
      if (info.dtype == DType::kF8E8m0) value = ToFloat(E8m0{static_cast<uint8_t>(half)});
      ASSERT_TRUE(std::isfinite(value)) << name << " at " << at;
      sum_of_squares += static_cast<double>(value) * value;
    }
    const double rms = std::sqrt(sum_of_squares / static_cast<double>(info.element_count()));
    EXPECT_GT(rms, 1e-3) << name;
    EXPECT_LT(rms, info.dtype == DType::kF8E4m3 ? 200.0 : 3.0) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Both, MakeModelVariants, testing::Values(Variant::kPaper, Variant::kV41),
                         [](const auto& param) {
                           return std::string(table::VariantName(param.param));
                         });

TEST_F(MakeModelTest, SameSeedSameBytesAnotherSeedOtherWeights) {
  for (const Variant variant : {Variant::kPaper, Variant::kV41}) {
    const std::string name(table::VariantName(variant));
    const auto first = Digests(Make(name + "a", variant, 7));
    const auto again = Digests(Make(name + "b", variant, 7));
    const auto other = Digests(Make(name + "c", variant, 8));
    EXPECT_EQ(first, again);
    EXPECT_EQ(first.at("tokenizer.json"), other.at("tokenizer.json"));
    EXPECT_EQ(first.at("config.json"), other.at("config.json"));
    for (const auto& [file, digest] : first) {
      if (!file.ends_with(".safetensors")) continue;
      EXPECT_NE(digest, other.at(file)) << file;
    }
  }
}

TEST_F(MakeModelTest, TokenizerAndConfigAgree) {
  const std::string folder = Make("m", Variant::kPaper, 1);
  const auto tokenizer = text::Tokenizer::Load(folder + "/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  EXPECT_EQ(tokenizer->vocab_size(), 768);
  EXPECT_EQ(*tokenizer->RawToken(1), "<｜end▁of▁sentence｜>");
  const auto config = io::ParseJsonFile(folder + "/config.json");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(*io::GetInt(config->get_object(), "vocab_size", "config"), 768);
  const auto engram = table::LoadEngramConfig(folder + "/config.json");
  ASSERT_TRUE(engram.ok()) << engram.status().ToString();
  EXPECT_LT(engram->compressed_vocab_size, 768u) << "case and accents should have merged";
  EXPECT_GT(engram->compressed_vocab_size, 400u);
}

TEST_F(MakeModelTest, BenchTablesHaveTheSizeAskedFor) {
  MakeModelOptions options = Options("m", Variant::kV41, 1);
  options.preset = "bench";
  options.table_gib = 0.01;
  MadeModel made;
  const Status status = MakeModel(options, &made);
  ASSERT_TRUE(status.ok()) << status.ToString();
  // Primes lie above the size asked for, the more so the smaller it is.
  EXPECT_NEAR(static_cast<double>(made.table_bytes), 0.01 * 0x1p30, 0.01 * 0x1p30 * 0.1);
  EXPECT_NEAR(static_cast<double>(made.backbone_parameters), 100e6, 10e6);
  const auto checkpoint = io::Checkpoint::Open(options.out);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  EXPECT_TRUE(checkpoint->Has("model.layers.9.self_attn.q_b_proj.weight"));
}

TEST_F(MakeModelTest, FolderInUseIsKeptUnlessForced) {
  MakeModelOptions options = Options("m", Variant::kPaper, 1);
  ASSERT_TRUE(MakeModel(options).ok());
  const auto before = Digests(options.out);
  options.seed = 2;
  EXPECT_EQ(MakeModel(options).code(), Code::kAlreadyExists);
  EXPECT_EQ(Digests(options.out), before);
  options.force = true;
  options.variant = Variant::kV41;
  const Status forced = MakeModel(options);
  ASSERT_TRUE(forced.ok()) << forced.ToString();
  EXPECT_TRUE(io::Checkpoint::Open(options.out).ok());
}

TEST_F(MakeModelTest, BadOptionsAreRefusedByName) {
  MakeModelOptions options = Options("m", Variant::kPaper, 1);
  options.preset = "huge";
  EXPECT_THAT(MakeModel(options).message(), HasSubstr("huge"));
  options = Options("m", Variant::kPaper, 1);
  options.table_gib = 1;
  EXPECT_THAT(MakeModel(options).message(), HasSubstr("--table-gib"));
  options = Options("m", Variant::kPaper, 1);
  options.text_files = {"/nonexistent.txt"};
  EXPECT_THAT(MakeModel(options).message(), HasSubstr("/nonexistent.txt"));
}

}  // namespace
}  // namespace engram::ctl
