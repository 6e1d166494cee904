// A small made-up checkpoint for the memory node's tests: config, token map and Engram tables only,
// whose row bytes are a function of (seed, layer, row).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/checkpoint/model_tables.h"

namespace engram::memnode {

struct TinyCheckpoint {
  uint64_t seed = 7;
  std::string variant = "paper";  // or "v41"
  std::string left_out = {};      // a tensor that is not written
  uint64_t rows_missing = 0;      // at the end of the first table
  std::string config_extra = {};  // members added to config.json, each with a comma behind
  std::string layer_ids = "[1, 3]";
  uint64_t vocab_size = 300;  // requested, per order

  // Writes the folder, replacing what was there.
  void Write(const std::string& folder) const;
};

// Row `row` of layer `layer_index` as on the wire, read from the folder's checkpoint.
std::vector<std::byte> CheckpointRow(const std::string& folder, uint32_t layer_index, uint64_t row);

client::ModelTables LoadTiny(const std::string& folder);

// A fresh empty folder below the test's temporary directory.
std::string FreshFolder(const std::string& name);

}  // namespace engram::memnode
