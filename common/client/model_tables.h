// A model folder as a table set: config.json and engram_token_map.bin become layout and identity.
// Both programs call this, so that they cannot disagree. Reads no tensor.
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
  table::VocabMap map;
  table::TableLayout layout;
  table::TableIdentity identity;  // content digest empty
};

// `model_name` empty: the base name of the folder. NOT_FOUND names the folder or file;
// FAILED_PRECONDITION when the config has no Engram layers.
Result<ModelTables> LoadModelTables(const std::string& model_dir, std::string model_name,
                                    std::string version);

// The last component of a path, also when it ends in slashes.
std::string FolderName(const std::string& path);

}  // namespace engram::client
