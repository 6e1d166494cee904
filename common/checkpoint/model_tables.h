// A model folder as a table set: config.json, the token map and the tensors' headers become layout
// and identity. Both programs call this, so that they cannot disagree. Reads no tensor.
//
// The token map is engram_token_map.bin, or, in a folder as its makers ship it, built from
// tokenizer.json (about a second). A folder without tensors is taken at its config's word.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/table/engram_config.h"
#include "common/table/identity.h"
#include "common/table/layout.h"
#include "common/table/vocab_map.h"

namespace engram::client {

struct ModelTables {
  table::EngramConfig config;
  table::VocabMap map;  // empty for rows that are asked for by number (layout.can_hash() false)
  table::TableLayout layout;
  table::TableIdentity identity;  // content digest empty
};

// `model_name` empty: the base name of the folder. NOT_FOUND names the folder or file;
// FAILED_PRECONDITION when the config has no Engram layers.
Result<ModelTables> LoadModelTables(const std::string& model_dir, std::string model_name,
                                    std::string version);

// The token map of a tokenizer.json.
Result<table::VocabMap> MapOfTokenizer(const std::string& tokenizer_json_path);

// The folder's own name, however `path` leads to it (".", slashes at the end, a symbolic link): the
// last component of the canonical path. Of an empty path "".
std::string FolderName(const std::string& path);

}  // namespace engram::client
