#include "common/checkpoint/model_tables.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/checkpoint/checkpoint_tables.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/table_parts.h"
#include "common/io/json.h"
#include "common/io/read_file.h"
#include "common/text/tokenizer.h"

namespace engram::client {
namespace {

// 16 rows a position: orders 2 and 3, 8 heads each.
constexpr int kPleOrders = 3;
constexpr int kPleHeads = 8;

// The tokenizer's raw vocabulary, which sizes the token map; 0 when the config does not say.
Result<uint64_t> RawVocabSize(const std::string& config_path) {
  ASSIGN_OR_RETURN(const json::value document, io::ParseJsonFile(config_path));
  const json::object* object = document.if_object();
  if (object == nullptr) return InvalidArgument(fmt::format("{} is no object", config_path));
  const json::value* text = object->if_contains("text_config");
  if (text != nullptr && text->is_object()) {
    const json::value* top = object->if_contains("vocab_size");
    const json::value* nested = text->get_object().if_contains("vocab_size");
    if (top != nullptr && nested != nullptr && *top != *nested) {
      return InvalidArgument(fmt::format("{}: vocab_size is {}, but {} in text_config", config_path,
                                         json::serialize(*top), json::serialize(*nested)));
    }
    if (top == nullptr) object = text->if_object();
  }
  if (!object->contains("vocab_size")) return uint64_t{0};
  ASSIGN_OR_RETURN(const int64_t size, io::GetInt(*object, "vocab_size", config_path));
  if (size <= 0) {
    return InvalidArgument(fmt::format("{}: vocab_size is {}, must be > 0", config_path, size));
  }
  return static_cast<uint64_t>(size);
}

Result<table::VocabMap> LoadTokenMap(const std::string& model_dir, uint64_t raw_vocab_size,
                                     const table::EngramConfig& config) {
  const std::string map_path = model_dir + "/engram_token_map.bin";
  const std::string tokenizer_path = model_dir + "/tokenizer.json";
  if (io::HasEntry(map_path) || !io::HasEntry(tokenizer_path)) {
    return table::VocabMap::Load(map_path, raw_vocab_size, config.compressed_vocab_size);
  }
  ASSIGN_OR_RETURN(table::VocabMap map, MapOfTokenizer(tokenizer_path));
  if (config.compressed_vocab_size != 0 && map.compressed_size() != config.compressed_vocab_size) {
    return InvalidArgument(fmt::format(
        "{} compresses to {} tokens, but engram_compressed_vocab_size is {}: every row would be "
        "another one; put the model's own engram_token_map.bin beside it",
        tokenizer_path, map.compressed_size(), config.compressed_vocab_size));
  }
  return map;
}

// Rows by number: no primes, no multipliers.
Result<table::TableLayout> PleLayout(const io::Checkpoint& checkpoint,
                                     const table::EngramConfig& config) {
  ASSIGN_OR_RETURN(const auto tables, FindTableParts(checkpoint, config.layer_ids, 0));
  table::TableLayout layout;
  layout.max_ngram_size = kPleOrders;
  layout.heads_per_order = kPleHeads;
  layout.row_format = tables[0].format;
  for (const TableParts& parts : tables) {
    table::LayerLayout layer;
    layer.layer_id = parts.layer_id;
    layer.total_rows = parts.rows;
    layout.layers.push_back(std::move(layer));
  }
  return layout;
}

}  // namespace

Result<table::VocabMap> MapOfTokenizer(const std::string& tokenizer_json_path) {
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, text::Tokenizer::Load(tokenizer_json_path));
  std::vector<table::VocabMap::TokenText> tokens;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    ASSIGN_OR_RETURN(const std::string bytes, tokenizer.Decode({&id, 1}));
    ASSIGN_OR_RETURN(std::string raw, tokenizer.RawToken(id));
    tokens.push_back({text::ReplaceInvalidUtf8(bytes), std::move(raw)});
  }
  return table::VocabMap::Build(tokens);
}

std::string FolderName(const std::string& path) {
  namespace fs = std::filesystem;
  if (path.empty()) return "";
  std::error_code error;
  fs::path folder = fs::weakly_canonical(fs::absolute(path, error), error);
  if (error) folder = fs::path(path).lexically_normal();  // a part of it cannot be looked at
  if (!folder.has_filename()) folder = folder.parent_path();
  return folder.filename();
}

Result<ModelTables> LoadModelTables(const std::string& model_dir, std::string model_name,
                                    std::string version) {
  std::error_code error;
  if (!std::filesystem::is_directory(model_dir, error)) {
    return NotFound(fmt::format("model folder {} does not exist or is no folder", model_dir));
  }
  const std::string config_path = model_dir + "/config.json";
  ModelTables tables;
  ASSIGN_OR_RETURN(tables.config, table::LoadEngramConfig(config_path));
  const Result<io::Checkpoint> checkpoint = io::Checkpoint::Open(model_dir);
  if (checkpoint.ok()) {
    RETURN_IF_ERROR(CheckLayersListed(*checkpoint, tables.config.layer_ids));
  }
  if (tables.config.layer_ids.empty()) {
    return FailedPrecondition(
        fmt::format("{} has no Engram layers (engram_layer_ids): there is nothing to serve from "
                    "memory nodes",
                    config_path));
  }
  if (!checkpoint.ok() && (tables.config.ple || checkpoint.status().code() != Code::kNotFound)) {
    return checkpoint.status();
  }
  if (tables.config.ple) {
    ASSIGN_OR_RETURN(tables.layout, PleLayout(*checkpoint, tables.config));
  } else {
    ASSIGN_OR_RETURN(const uint64_t raw_vocab_size, RawVocabSize(config_path));
    ASSIGN_OR_RETURN(tables.map, LoadTokenMap(model_dir, raw_vocab_size, tables.config));
    ASSIGN_OR_RETURN(const int64_t pad, tables.map.Compress(tables.config.pad_id));
    ASSIGN_OR_RETURN(const table::RowEncoding encoding,
                     DetectEncoding(checkpoint.ok() ? &*checkpoint : nullptr, tables.config));
    ASSIGN_OR_RETURN(tables.layout,
                     table::MakeLayout(tables.config, tables.map.compressed_size(), pad, encoding));
  }
  if (model_name.empty()) model_name = FolderName(model_dir);
  tables.identity = table::MakeIdentity(tables.layout, std::move(model_name), std::move(version));
  return tables;
}

}  // namespace engram::client
