// make-model --layout: the folder is the released one's, scaled, and every row is procedural.
#include "memnode/ctl/make_model/layout_maker.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/table_source.h"
#include "common/io/json.h"
#include "common/table/procedural.h"

namespace engram::ctl {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class LayoutMakerTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) / (std::string("layout_maker_") + info->name());
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  MakeLayoutOptions Options(const std::string& layout) const {
    MakeLayoutOptions options;
    options.layout = layout;
    options.rows_scale = 2e-5;
    options.seed = 9;
    options.out = folder_.string();
    return options;
  }
  // Makes the folder, and compares layout and every row with the procedural tables `name`.
  client::ModelTables ExpectProcedural(const MakeLayoutOptions& options, const std::string& name) {
    MadeLayout made;
    const Status status = MakeLayoutFolder(options, &made);
    EXPECT_TRUE(status.ok()) << status.message();
    auto model = client::LoadModelTables(options.out, "m", "1");
    CHECK(model.ok()) << model.status().message();
    const auto layout = *table::MakeProceduralLayout(
        {.layout = name, .rows_scale = options.rows_scale, .seed = options.seed});
    const Status same = table::CheckSameIdentity(table::MakeIdentity(layout, "m", "1"),
                                                 model->identity, "the folder");
    EXPECT_TRUE(same.ok()) << same.message();
    auto source = client::OpenTableSource(options.out, *model);
    CHECK(source.ok()) << source.status().message();
    uint64_t rows = 0;
    const uint32_t row_bytes = layout.row_format.row_bytes();
    std::vector<std::byte> row(row_bytes), expected(row_bytes);
    for (uint32_t i = 0; i < layout.layers.size(); ++i) {
      for (uint64_t r = 0; r < layout.layers[i].total_rows; ++r, ++rows) {
        CHECK((*source)->ReadRows(i, r, 1, row.data()).ok());
        table::FillProceduralRow(layout.row_format, options.seed, i, r, expected);
        EXPECT_EQ(row, expected) << "layer " << i << " row " << r;
        if (row != expected) return *std::move(model);
      }
    }
    EXPECT_EQ(made.table_rows, rows);
    EXPECT_EQ(made.table_bytes, rows * row_bytes);
    return *std::move(model);
  }

  fs::path folder_;
};

TEST_F(LayoutMakerTest, V41HasItsShardsNamesTypesAndKeys) {
  const client::ModelTables model = ExpectProcedural(Options("v41"), "v41");
  EXPECT_EQ(model.map.raw_size(), 129'280u);
  EXPECT_EQ(model.map.compressed_size(), 99'092u);
  const json::object config = io::ParseJsonFile((folder_ / "config.json").string())->get_object();
  EXPECT_FALSE(config.contains("engram_variant"));
  const auto checkpoint = io::Checkpoint::Open(folder_.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const struct {
    int layer_id;
    const char* shard;
  } tables[] = {{1, "model-00047-of-00048.safetensors"}, {14, "model-00048-of-00048.safetensors"}};
  for (const auto& table : tables) {
    for (const char* leaf : {"embed.weight", "embed.scale", "q_weight", "k_weight"}) {
      const std::string name = fmt::format("layers.{}.engram.{}", table.layer_id, leaf);
      const auto view = checkpoint->Get(name);
      ASSERT_TRUE(view.ok()) << view.status().message();
      EXPECT_THAT(checkpoint->PathOf(*view->info), HasSubstr(table.shard)) << name;
    }
    const std::string embed = fmt::format("layers.{}.engram.embed.", table.layer_id);
    EXPECT_EQ(checkpoint->Get(embed + "weight")->info->dtype, DType::kF8E4m3);
    EXPECT_EQ(checkpoint->Get(embed + "scale")->info->dtype, DType::kF8E8m0);
    EXPECT_EQ(checkpoint->Get(embed + "scale")->info->shape[1], 8u);
  }
  for (int i = 1; i <= 48; ++i) {
    EXPECT_TRUE(fs::exists(folder_ / fmt::format("model-{:05}-of-00048.safetensors", i)));
  }
}

TEST_F(LayoutMakerTest, PaperRowsAreProcedural) { ExpectProcedural(Options("paper"), "paper"); }

TEST_F(LayoutMakerTest, PleHas128ShardsInEightFiles) {
  MakeLayoutOptions options = Options("qwen-ple");
  const client::ModelTables model = ExpectProcedural(options, "qwen-ple");
  EXPECT_TRUE(model.config.ple);
  EXPECT_EQ(model.layout.layers[0].layer_id, 1);  // ple_layer_ids [2] counts from 1
  const auto checkpoint = io::Checkpoint::Open(folder_.string());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(checkpoint->tensors().size(), 128u);
  EXPECT_TRUE(checkpoint->Has(
      "model.language_model.layers.1.ple.ple_embedding.ngram_embedding.shard_127.weight"));
  options.dtype = "fp8";
  options.force = true;
  EXPECT_EQ(ExpectProcedural(options, "qwen-ple-fp8").layout.row_format.row_bytes(), 160u);
}

TEST_F(LayoutMakerTest, WhatCannotBeMadeIsNamed) {
  MakeLayoutOptions options = Options("v42");
  EXPECT_THAT(MakeLayoutFolder(options).message(), HasSubstr("v42"));
  options = Options("v41");
  options.dtype = "fp8";
  EXPECT_THAT(MakeLayoutFolder(options).message(), HasSubstr("--dtype"));
  options = Options("v41");
  options.rows_scale = 0;
  EXPECT_THAT(MakeLayoutFolder(options).message(), HasSubstr("rows_scale"));
  EXPECT_FALSE(fs::exists(folder_));
  ASSERT_TRUE(MakeLayoutFolder(Options("paper")).ok());
  EXPECT_EQ(MakeLayoutFolder(Options("paper")).code(), Code::kAlreadyExists);
}

TEST_F(LayoutMakerTest, AFullDiskIsTold) {
  fs::create_directories(folder_);
  MakeLayoutOptions options = Options("paper");
  fs::create_symlink("/dev/full", folder_ / "engram_token_map.bin");
  options.force = true;
  const Status status = MakeLayoutFolder(options);
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("engram_token_map.bin"));
  EXPECT_FALSE(fs::exists(folder_ / "config.json"));
}

}  // namespace
}  // namespace engram::ctl
