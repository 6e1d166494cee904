#include "memnode/ctl/make_model/layout_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "common/io/json.h"
#include "common/table/procedural.h"
#include "memnode/ctl/make_model/model_folder.h"

namespace engram::ctl {
namespace {

namespace fs = std::filesystem;
using Shards = std::vector<std::vector<ModelTensor>>;

// Sizes of the released models.
constexpr int kRawVocab = 129'280;
constexpr uint64_t kV41Shards = 48;
constexpr uint64_t kV41Hidden = 5120;
constexpr uint64_t kV41Streams = 4;
constexpr uint64_t kV41Layers = 40;
constexpr uint64_t kPaperHidden = 2560;
constexpr uint64_t kPleFiles = 8;

ModelTensor Small(std::string name, DType dtype, std::vector<uint64_t> shape) {
  return {{std::move(name), dtype, std::move(shape)}, {TensorRule::Kind::kNormal, 1, 0.1f}};
}

// `name` as in the checkpoint; the rows of one tensor, or their scales.
ModelTensor Rows(std::string name, const table::ProceduralSpec& spec,
                 const table::RowFormat& format, uint32_t layer_index, uint64_t first_row,
                 uint64_t rows, bool scales = false) {
  const auto head_dim = static_cast<uint64_t>(format.head_dim);
  const DType weight = format.encoding == table::RowEncoding::kBf16 ? DType::kBf16 : DType::kF8E4m3;
  ModelTensor tensor;
  tensor.declaration = {
      std::move(name), scales ? DType::kF8E8m0 : weight, {rows, scales ? head_dim / 32 : head_dim}};
  tensor.procedural = ProceduralPart{format, spec.seed, layer_index, first_row, scales};
  return tensor;
}

// One small tensor of the backbone in each shard, the two tables in the last two.
Shards V41Shards(const table::ProceduralSpec& spec, const table::TableLayout& layout) {
  Shards shards(kV41Shards);
  const uint64_t backbone = kV41Shards - layout.layers.size();
  for (uint64_t i = 0; i + 1 < backbone; ++i) {
    const char* norm = i < kV41Layers ? "attn_norm" : "ffn_norm";
    shards[i].push_back(Small(fmt::format("layers.{}.{}.weight", i % kV41Layers, norm),
                              DType::kBf16, {kV41Hidden}));
  }
  shards[backbone - 1].push_back(Small("norm.weight", DType::kBf16, {kV41Hidden}));
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    const table::LayerLayout& layer = layout.layers[i];
    const std::string prefix = fmt::format("layers.{}.engram.", layer.layer_id);
    std::vector<ModelTensor>& shard = shards[backbone + i];
    for (const char* name : {"q_weight", "k_weight"}) {
      shard.push_back(Small(prefix + name, DType::kF32, {kV41Streams, kV41Hidden}));
    }
    const table::RowFormat& format = layout.row_format;
    shard.push_back(Rows(prefix + "embed.weight", spec, format, i, 0, layer.total_rows));
    shard.push_back(Rows(prefix + "embed.scale", spec, format, i, 0, layer.total_rows, true));
  }
  return shards;
}

Shards PaperShards(const table::ProceduralSpec& spec, const table::TableLayout& layout) {
  Shards shards;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    const table::LayerLayout& layer = layout.layers[i];
    const std::string prefix = fmt::format("model.layers.{}.", layer.layer_id);
    shards.push_back(
        {Small(prefix + "input_layernorm.weight", DType::kBf16, {kPaperHidden}),
         Rows(prefix + "engram.embed.weight", spec, layout.row_format, i, 0, layer.total_rows)});
  }
  return shards;
}

Shards PleShards(const table::ProceduralSpec& spec, const table::TableLayout& layout) {
  Shards shards(kPleFiles);
  const table::LayerLayout& layer = layout.layers[0];
  const uint64_t rows = layer.total_rows / table::kPleShards;
  for (uint64_t i = 0; i < table::kPleShards; ++i) {
    shards[i * kPleFiles / table::kPleShards].push_back(
        Rows(fmt::format("model.language_model.layers.{}.ple.ple_embedding.ngram_embedding."
                         "shard_{}.weight",
                         layer.layer_id, i),
             spec, layout.row_format, 0, i * rows, rows));
  }
  return shards;
}

json::object EngramKeys(const table::EngramConfig& config, const table::TableLayout& layout) {
  json::array rows;
  for (const table::LayerLayout& layer : layout.layers) rows.push_back(layer.total_rows);
  return {{"vocab_size", kRawVocab},
          {"engram_layer_ids", json::array(config.layer_ids.begin(), config.layer_ids.end())},
          {"engram_num_embeddings", std::move(rows)},
          {"engram_max_ngram_size", config.max_ngram_size},
          {"engram_vocab_size", config.requested_vocab_sizes[0]},
          {"engram_n_heads", config.heads_per_order},
          {"engram_head_dim", config.head_dim},
          {"engram_pad_token_id", config.pad_id},
          {"engram_compressed_vocab_size", config.compressed_vocab_size}};
}

// As V4.1 ships it there is no engram_variant.
json::object V41Config(const table::EngramConfig& config, const table::TableLayout& layout) {
  json::object keys = EngramKeys(config, layout);
  keys["hidden_size"] = kV41Hidden;
  keys["num_hidden_layers"] = kV41Layers;
  keys["hc_mult"] = kV41Streams;
  keys["n_routed_experts"] = 384;
  keys["n_shared_experts"] = 1;
  keys["num_experts_per_tok"] = 6;
  return keys;
}

json::object PaperConfig(const table::EngramConfig& config, const table::TableLayout& layout) {
  json::object keys = EngramKeys(config, layout);
  keys["hidden_size"] = kPaperHidden;
  keys["engram_variant"] = "paper";
  return keys;
}

// Dense, its values numbered by first occurrence: the ids behind the last one repeat the first.
Status WriteTokenMap(const std::string& out, uint64_t compressed_vocab_size) {
  std::vector<int32_t> map(kRawVocab);
  for (size_t i = 0; i < map.size(); ++i) {
    map[i] = static_cast<int32_t>(i % compressed_vocab_size);
  }
  return WriteBytes(fs::path(out) / "engram_token_map.bin",
                    {reinterpret_cast<const char*>(map.data()), map.size() * sizeof(map[0])});
}

// "qwen-ple" with its row type.
Result<std::string> ProceduralName(const MakeLayoutOptions& options) {
  const bool fp8 = options.dtype == "fp8";
  if (!fp8 && options.dtype != "bf16") {
    return InvalidArgument(fmt::format("row type \"{}\", must be bf16 or fp8", options.dtype));
  }
  if (fp8 && options.layout != "qwen-ple") {
    return InvalidArgument(
        fmt::format("the row type of layout {} is fixed; --dtype is for qwen-ple", options.layout));
  }
  return fp8 ? std::string("qwen-ple-fp8") : options.layout;
}

}  // namespace

Status MakeLayoutFolder(const MakeLayoutOptions& options, MadeLayout* made) {
  table::ProceduralSpec spec;
  ASSIGN_OR_RETURN(spec.layout, ProceduralName(options));
  spec.rows_scale = options.rows_scale;
  spec.seed = options.seed;
  ASSIGN_OR_RETURN(const table::TableLayout layout, table::MakeProceduralLayout(spec));
  RETURN_IF_ERROR(PrepareFolder(options.out, options.force));
  Shards shards;
  json::object config;
  if (options.layout == "qwen-ple") {
    shards = PleShards(spec, layout);
    config["text_config"] = json::object{{"ple_layer_ids", json::array{2}}};  // counted from 1
  } else {
    ASSIGN_OR_RETURN(const table::EngramConfig engram, table::MakeProceduralConfig(spec));
    const bool v41 = options.layout == "v41";
    shards = v41 ? V41Shards(spec, layout) : PaperShards(spec, layout);
    config = v41 ? V41Config(engram, layout) : PaperConfig(engram, layout);
    RETURN_IF_ERROR(WriteTokenMap(options.out, engram.compressed_vocab_size));
  }
  RETURN_IF_ERROR(WriteShards(options.out, shards, options.seed));
  if (made != nullptr) {
    for (const table::LayerLayout& layer : layout.layers) made->table_rows += layer.total_rows;
    made->table_bytes = made->table_rows * layout.row_format.row_bytes();
    made->shard_count = shards.size();
  }
  return WriteBytes(fs::path(options.out) / "config.json", json::serialize(config) + "\n");
}

}  // namespace engram::ctl
