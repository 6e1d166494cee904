#include "common/client/model_tables.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/client/checkpoint_tables.h"
#include "common/io/json.h"

namespace engram::client {
namespace {

// The tokenizer's raw vocabulary, which sizes the token map; 0 when the config does not say.
Result<uint64_t> RawVocabSize(const std::string& config_path) {
  ASSIGN_OR_RETURN(const json::value document, io::ParseJsonFile(config_path));
  const json::object* object = document.if_object();
  if (object == nullptr) return InvalidArgument(fmt::format("{} is no object", config_path));
  if (const json::value* text = object->if_contains("text_config");
      text != nullptr && text->is_object() && !object->contains("vocab_size")) {
    object = text->if_object();
  }
  if (!object->contains("vocab_size")) return uint64_t{0};
  ASSIGN_OR_RETURN(const int64_t size, io::GetInt(*object, "vocab_size", config_path));
  if (size <= 0) {
    return InvalidArgument(fmt::format("{}: vocab_size is {}, must be > 0", config_path, size));
  }
  return static_cast<uint64_t>(size);
}

}  // namespace

std::string FolderName(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).lexically_normal();
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
  if (tables.config.layer_ids.empty()) {
    return FailedPrecondition(
        fmt::format("{} has no Engram layers (engram_layer_ids): there is nothing to serve from "
                    "memory nodes",
                    config_path));
  }
  ASSIGN_OR_RETURN(const uint64_t raw_vocab_size, RawVocabSize(config_path));
  ASSIGN_OR_RETURN(tables.map,
                   table::VocabMap::Load(model_dir + "/engram_token_map.bin", raw_vocab_size,
                                         tables.config.compressed_vocab_size));
  ASSIGN_OR_RETURN(const int64_t pad, tables.map.Compress(tables.config.pad_id));
  ASSIGN_OR_RETURN(const table::RowEncoding encoding, DetectEncoding(nullptr, tables.config));
  ASSIGN_OR_RETURN(tables.layout,
                   table::MakeLayout(tables.config, tables.map.compressed_size(), pad, encoding));
  if (model_name.empty()) model_name = FolderName(model_dir);
  tables.identity = table::MakeIdentity(tables.layout, std::move(model_name), std::move(version));
  return tables;
}

}  // namespace engram::client
