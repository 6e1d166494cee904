#include "tests/memnode/tiny_checkpoint.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/base/rng.h"
#include "common/checkpoint/checkpoint_tables.h"
#include "common/checkpoint/safetensors.h"

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;

constexpr int kRawVocab = 64;
constexpr int kHeadDim = 32;

struct Tensor {
  io::SafetensorsWriter::Declaration declaration;
  std::vector<std::byte> bytes;
};

Tensor MakeTensor(std::string name, DType dtype, uint64_t rows, uint64_t columns, uint64_t seed) {
  Tensor tensor{{std::move(name), dtype, {rows, columns}}, {}};
  tensor.bytes.resize(rows * columns * SizeOf(dtype));
  Rng rng(seed);
  for (std::byte& byte : tensor.bytes) byte = static_cast<std::byte>(rng.NextU64());
  return tensor;
}

void WriteConfig(const TinyCheckpoint& tiny, const std::string& folder) {
  std::ofstream(folder + "/config.json")
      << "{" << tiny.config_extra << "\"vocab_size\": " << kRawVocab
      << ", \"engram_layer_ids\": " << tiny.layer_ids
      << ", \"engram_max_ngram_size\": 3, \"engram_n_heads\": 2, \"engram_head_dim\": " << kHeadDim
      << ", \"engram_vocab_size\": " << tiny.vocab_size << ", \"engram_pad_id\": 2"
      << ", \"engram_variant\": \"" << tiny.variant << "\"}";
}

void WriteTokenMap(const std::string& folder) {
  std::ofstream out(folder + "/engram_token_map.bin", std::ios::binary);
  for (int32_t raw = 0; raw < kRawVocab; ++raw) {
    const int32_t compressed = raw / 2;
    out.write(reinterpret_cast<const char*>(&compressed), sizeof(compressed));
  }
}

std::vector<Tensor> MakeTensors(const TinyCheckpoint& tiny, const table::TableLayout& layout) {
  const bool scaled = tiny.variant == "v41";
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < layout.layers.size(); ++i) {
    const table::LayerLayout& layer = layout.layers[i];
    const uint64_t rows = layer.total_rows - (i == 0 ? tiny.rows_missing : 0);
    const std::string prefix = fmt::format("model.layers.{}.engram.embed.", layer.layer_id);
    tensors.push_back(MakeTensor(prefix + "weight", scaled ? DType::kF8E4m3 : DType::kBf16, rows,
                                 kHeadDim, Mix64(tiny.seed, i)));
    if (!scaled) continue;
    tensors.push_back(
        MakeTensor(prefix + "scale", DType::kF8E8m0, rows, kHeadDim / 32, Mix64(tiny.seed, i, 1)));
  }
  std::erase_if(tensors, [&](const Tensor& t) { return t.declaration.name == tiny.left_out; });
  return tensors;
}

}  // namespace

void TinyCheckpoint::Write(const std::string& folder) const {
  fs::remove_all(folder);
  fs::create_directories(folder);
  WriteConfig(*this, folder);
  WriteTokenMap(folder);
  const auto model = client::LoadModelTables(folder, "", "1");
  if (!model.ok()) return;  // a config the test wants refused
  const std::vector<Tensor> tensors = MakeTensors(*this, model->layout);
  std::vector<io::SafetensorsWriter::Declaration> declarations;
  for (const Tensor& tensor : tensors) declarations.push_back(tensor.declaration);
  auto writer = io::SafetensorsWriter::Create(folder + "/model.safetensors", declarations);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  for (const Tensor& tensor : tensors) ASSERT_TRUE(writer->Append(tensor.bytes).ok());
  ASSERT_TRUE(writer->Finish().ok());
}

client::ModelTables LoadTiny(const std::string& folder) {
  auto model = client::LoadModelTables(folder, "", "1");
  CHECK(model.ok()) << model.status().message();
  return std::move(*model);
}

std::vector<std::byte> CheckpointRow(const std::string& folder, uint32_t layer_index,
                                     uint64_t row) {
  const client::ModelTables model = LoadTiny(folder);
  const auto checkpoint = io::Checkpoint::Open(folder);
  CHECK(checkpoint.ok()) << checkpoint.status().message();
  const auto tables = client::CheckpointTables::Open(&*checkpoint, model.config);
  CHECK(tables.ok()) << tables.status().message();
  std::vector<std::byte> bytes(tables->row_format().row_bytes());
  tables->CopyRows(layer_index, row, 1, bytes.data());
  return bytes;
}

std::string FreshFolder(const std::string& name) {
  const std::string folder = fmt::format("{}memnode-{}-{}", testing::TempDir(), ::getpid(), name);
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

}  // namespace engram::memnode
