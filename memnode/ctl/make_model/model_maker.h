// Writes a complete seeded model folder: config.json, tokenizer.json, engram_token_map.bin and
// sharded safetensors with their index. The weights mean nothing, but everything about them is
// real.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/engram_config.h"

namespace engram::ctl {

struct MakeModelOptions {
  std::string preset = "tiny";  // tiny, small or bench
  table::Variant variant = table::Variant::kPaper;
  uint64_t seed = 1;
  std::string out;                      // folder, created
  std::vector<std::string> text_files;  // to train the tokenizer on; empty = the shipped corpus
  int64_t vocab_size = 0;               // of the tokenizer; 0 = the preset's
  double table_gib = 0;                 // bench only; 0 = its default
  bool force = false;                   // replace a model already in `out`
};

struct MadeModel {
  uint64_t backbone_parameters = 0;
  uint64_t table_rows = 0;
  uint64_t table_bytes = 0;
  uint64_t vocab_size = 0;
  uint64_t compressed_vocab_size = 0;
  uint64_t shard_count = 0;
};

// ALREADY_EXISTS when `out` is not empty and `force` is not set. The same options give the same
// bytes. config.json is written last: a folder without it is not finished. `made` may be null.
Status MakeModel(const MakeModelOptions& options, MadeModel* made = nullptr);

}  // namespace engram::ctl
