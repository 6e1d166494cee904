// Tables inside a checkpoint: found, checked, and read as the bytes a memory node sends.
#include "common/client/local_table.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "common/base/rng.h"
#include "common/checkpoint/table_parts.h"

namespace engram::client {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Declaration = io::SafetensorsWriter::Declaration;

constexpr uint64_t kRows = 50;

class LocalTableTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ =
        std::filesystem::temp_directory_path() / fmt::format("engram_local_table_{}", ::getpid());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // Writes the tensors with seeded bytes and opens the folder.
  const io::Checkpoint* Write(std::vector<Declaration> tensors) {
    auto writer =
        io::SafetensorsWriter::Create((directory_ / "model.safetensors").string(), tensors);
    CHECK(writer.ok()) << writer.status().ToString();
    Rng rng(3);
    for (const Declaration& tensor : tensors) {
      std::vector<std::byte> bytes(tensor.shape[0] * tensor.shape[1] * SizeOf(tensor.dtype));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.NextU64());
      CHECK(writer->Append(bytes).ok());
      contents_[tensor.name] = std::move(bytes);
    }
    CHECK(writer->Finish().ok());
    auto checkpoint = io::Checkpoint::Open(directory_.string());
    CHECK(checkpoint.ok()) << checkpoint.status().ToString();
    checkpoint_ = std::make_unique<io::Checkpoint>(std::move(*checkpoint));
    return checkpoint_.get();
  }
  static table::EngramConfig Config(std::vector<int> layer_ids = {1, 4}) {
    table::EngramConfig config;
    config.layer_ids = std::move(layer_ids);
    config.head_dim = 64;
    return config;
  }
  static table::TableLayout Layout(table::RowEncoding encoding) {
    table::TableLayout layout;
    layout.row_format = {encoding, 64};
    layout.layers.push_back(
        {.layer_id = 1, .multipliers = {}, .primes = {}, .offsets = {}, .total_rows = kRows});
    layout.layers.push_back(
        {.layer_id = 4, .multipliers = {}, .primes = {}, .offsets = {}, .total_rows = kRows});
    return layout;
  }
  static std::vector<Declaration> Bf16Tables(const std::string& prefix) {
    return {{prefix + "layers.1.engram.embed.weight", DType::kBf16, {kRows, 64}},
            {prefix + "layers.4.engram.embed.weight", DType::kBf16, {kRows, 64}}};
  }
  static std::vector<Declaration> Fp8Tables() {
    return {{"layers.1.engram.embed.weight", DType::kF8E4m3, {kRows, 64}},
            {"layers.1.engram.embed.scale", DType::kF8E8m0, {kRows, 2}},
            {"layers.4.engram.embed.weight", DType::kF8E4m3, {kRows, 64}},
            {"layers.4.engram.embed.scale", DType::kF8E8m0, {kRows, 2}}};
  }
  Status OpenStatus(std::vector<Declaration> tensors) {
    return CheckpointTables::Open(Write(std::move(tensors)), Config()).status();
  }

  std::filesystem::path directory_;
  std::map<std::string, std::vector<std::byte>> contents_;
  std::unique_ptr<io::Checkpoint> checkpoint_;
};

TEST_F(LocalTableTest, Bf16RowsAreTheTensorsBytesUnderEitherPrefix) {
  for (const std::string prefix : {"model.", ""}) {
    const auto* checkpoint = Write(Bf16Tables(prefix));
    const auto tables = CheckpointTables::Open(checkpoint, Config());
    ASSERT_TRUE(tables.ok()) << tables.status().ToString();
    EXPECT_EQ(tables->encoding(), table::RowEncoding::kBf16);
    EXPECT_EQ(tables->rows(1), kRows);
    std::vector<std::byte> rows(3 * 128);
    tables->CopyRows(1, 47, 3, rows.data());
    const auto& bytes = contents_[prefix + "layers.4.engram.embed.weight"];
    EXPECT_EQ(std::memcmp(rows.data(), bytes.data() + 47 * 128, rows.size()), 0);
  }
}

TEST_F(LocalTableTest, Fp8RowsCarryTheirScalesBehindTheWeights) {
  const auto tables = CheckpointTables::Open(Write(Fp8Tables()), Config());
  ASSERT_TRUE(tables.ok()) << tables.status().ToString();
  EXPECT_EQ(tables->row_format().row_bytes(), 66u);
  std::vector<std::byte> rows(2 * 66);
  tables->CopyRows(0, 10, 2, rows.data());
  for (size_t i = 0; i < 2; ++i) {
    const auto& weight = contents_["layers.1.engram.embed.weight"];
    const auto& scale = contents_["layers.1.engram.embed.scale"];
    EXPECT_EQ(std::memcmp(rows.data() + i * 66, weight.data() + (10 + i) * 64, 64), 0);
    EXPECT_EQ(std::memcmp(rows.data() + i * 66 + 64, scale.data() + (10 + i) * 2, 2), 0);
  }
}

TEST_F(LocalTableTest, MissingTensorsAreNamed) {
  auto tensors = Bf16Tables("model.");
  tensors.pop_back();
  Status status = OpenStatus(tensors);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("model.layers.4.engram.embed.weight"));
  tensors = Fp8Tables();
  tensors.pop_back();
  status = OpenStatus(tensors);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("layers.4.engram.embed.scale"));
}

TEST_F(LocalTableTest, TablesOfLayersThatTheConfigDoesNotListAreNamed) {
  const io::Checkpoint* checkpoint =
      Write({{"model.layers.1.engram.embed.weight", DType::kBf16, {2, 8}},
             {"layers.14.engram.wkv.weight", DType::kBf16, {2, 8}},
             {"model.layers.3.mlp.engram", DType::kBf16, {2, 8}},
             {"model.language_model.layers.2.ple.ple_embedding.ngram_embedding.shard_0.weight",
              DType::kBf16,
              {2, 8}}});
  EXPECT_TRUE(CheckLayersListed(*checkpoint, {1, 2, 14}).ok());
  EXPECT_THAT(CheckLayersListed(*checkpoint, {1, 2}).message(),
              HasSubstr("layers.14.engram.wkv.weight, but its config.json lists [1, 2]"));
  EXPECT_THAT(CheckLayersListed(*checkpoint, {1, 14}).message(), HasSubstr("layers.2.ple."));
  EXPECT_THAT(CheckLayersListed(*checkpoint, {}).message(), HasSubstr("lists none"));
}

TEST_F(LocalTableTest, WrongShapesAndDtypesAreNamed) {
  auto tensors = Bf16Tables("");
  tensors[1].shape = {kRows, 32};
  EXPECT_THAT(OpenStatus(tensors).message(),
              AllOf(HasSubstr("layers.4"), HasSubstr("[50, 32]"), HasSubstr("64")));
  tensors = Bf16Tables("");
  tensors[0].dtype = DType::kF32;
  EXPECT_THAT(OpenStatus(tensors).message(), AllOf(HasSubstr("layers.1"), HasSubstr("F32")));
  tensors = Fp8Tables();
  tensors[1].shape = {kRows - 1, 2};
  EXPECT_THAT(OpenStatus(tensors).message(), AllOf(HasSubstr("49 rows"), HasSubstr("has 50")));
  tensors = Fp8Tables();
  tensors[3].dtype = DType::kBf16;
  EXPECT_THAT(OpenStatus(tensors).message(), AllOf(HasSubstr("layers.4"), HasSubstr("BF16")));
  tensors = Fp8Tables();
  tensors[2].dtype = DType::kBf16;
  EXPECT_EQ(OpenStatus(tensors).code(), Code::kInvalidArgument) << "two encodings";
}

TEST_F(LocalTableTest, ALayoutOfAnotherSizeIsRefused) {
  const auto* checkpoint = Write(Bf16Tables(""));
  auto layout = Layout(table::RowEncoding::kBf16);
  layout.layers[1].total_rows = kRows + 1;
  const Status status = LocalTable::Open(checkpoint, layout, {}).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("layer 4"), HasSubstr("50"), HasSubstr("51")));
}

TEST_F(LocalTableTest, EncodingComesFromTheTensorsElseFromTheVariant) {
  table::EngramConfig config = Config();
  config.variant = table::Variant::kV41;
  EXPECT_EQ(*DetectEncoding(nullptr, config), table::RowEncoding::kFp8Scaled);
  EXPECT_EQ(*DetectEncoding(Write(Bf16Tables("")), config), table::RowEncoding::kBf16);
  config.variant = table::Variant::kPaper;
  EXPECT_EQ(*DetectEncoding(nullptr, config), table::RowEncoding::kBf16);
  EXPECT_EQ(*DetectEncoding(Write(Fp8Tables()), config), table::RowEncoding::kFp8Scaled);
}

TEST_F(LocalTableTest, SubmitGathersAndCountsExactly) {
  const auto* checkpoint = Write(Fp8Tables());
  auto source = LocalTable::Open(checkpoint, Layout(table::RowEncoding::kFp8Scaled), {});
  ASSERT_TRUE(source.ok()) << source.status().ToString();
  const std::vector<uint64_t> rows = {7, 0, 7, 49};
  std::vector<std::byte> out(rows.size() * 66);
  const std::vector<LayerLookup> layers = {{1, rows, out}};
  auto ticket = (*source)->Submit(layers, TimePoint::max());
  ASSERT_TRUE(ticket.ok());
  EXPECT_TRUE(ticket->Ready(1));
  EXPECT_TRUE(ticket->Wait(1).ok());
  EXPECT_EQ(ticket->Wait(0).code(), Code::kInvalidArgument);
  const auto& weight = contents_["layers.4.engram.embed.weight"];
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(std::memcmp(out.data() + i * 66, weight.data() + rows[i] * 64, 64), 0);
  }
  EXPECT_EQ((*source)->stats().rows_asked, 4u);
  EXPECT_EQ((*source)->stats().rows_distinct, 3u);
  EXPECT_TRUE((*source)->stats().nodes.empty());
}

TEST_F(LocalTableTest, BadLookupsAreRefused) {
  const auto* checkpoint = Write(Bf16Tables(""));
  auto source = *LocalTable::Open(checkpoint, Layout(table::RowEncoding::kBf16), {});
  std::vector<uint64_t> rows = {kRows};
  std::vector<std::byte> out(128);
  std::vector<LayerLookup> layers = {{0, rows, out}};
  EXPECT_EQ(source->Submit(layers, TimePoint::max()).status().code(), Code::kOutOfRange);
  rows[0] = 0;
  layers[0].layer_index = 2;
  EXPECT_EQ(source->Submit(layers, TimePoint::max()).status().code(), Code::kInvalidArgument);
  layers[0].layer_index = 0;
  layers.push_back(layers[0]);
  EXPECT_EQ(source->Submit(layers, TimePoint::max()).status().code(), Code::kInvalidArgument);
}

// The tables are those of layers 1 and 4: index 1 is layer 4.
TEST_F(LocalTableTest, MessagesNameALayerByItsId) {
  auto local = LocalTable::Open(Write(Bf16Tables("")), Layout(table::RowEncoding::kBf16), {});
  ASSERT_TRUE(local.ok()) << local.status().message();
  const std::vector<uint64_t> rows = {kRows};
  std::vector<std::byte> out(128);
  const auto refusal = [&](const LayerLookup& lookup) {
    return (*local)->Submit({&lookup, 1}, SubmitOptions(TimePoint::max())).status().message();
  };
  EXPECT_THAT(refusal({1, rows, out}), HasSubstr("row 50 of layer 4, which has 50 rows"));
  EXPECT_THAT(refusal({1, rows, {}}), HasSubstr("in layer 4"));
}

TEST_F(LocalTableTest, ATruncatedShardIsAnErrorThatNamesIt) {
  const auto* checkpoint = Write(Bf16Tables(""));
  auto local = LocalTable::Open(checkpoint, Layout(table::RowEncoding::kBf16), {});
  ASSERT_TRUE(local.ok()) << local.status().message();
  const std::vector<uint64_t> rows = {49, 0, 7};
  std::vector<std::byte> out(rows.size() * 128);
  const LayerLookup lookup{1, rows, out};
  ASSERT_TRUE((*local)->Submit({&lookup, 1}, SubmitOptions(TimePoint::max())).ok());
  const std::string path = (directory_ / "model.safetensors").string();
  std::filesystem::resize_file(path, 100);
  auto ticket = (*local)->Submit({&lookup, 1}, SubmitOptions(TimePoint::max()));
  ASSERT_FALSE(ticket.ok());
  EXPECT_EQ(ticket.status().code(), Code::kDataLoss);
  EXPECT_THAT(ticket.status().message(), HasSubstr(path));
}

}  // namespace
}  // namespace engram::client
