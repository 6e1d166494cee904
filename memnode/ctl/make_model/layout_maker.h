// Writes a model folder as a released one is laid out on disk, rows scaled: its file names, tensor
// names, types and config keys, a token map of its size, and procedural rows, so that whatever was
// imported from it can be verified row by row without it. There is no backbone in it to run.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"

namespace engram::ctl {

struct MakeLayoutOptions {
  std::string layout;          // v41, paper or qwen-ple
  std::string dtype = "bf16";  // of qwen-ple: bf16, or fp8 without scales
  double rows_scale = 1;       // 1e-6..1, as ProceduralSpec's
  uint64_t seed = 1;
  std::string out;
  bool force = false;
};

struct MadeLayout {
  uint64_t table_rows = 0;
  uint64_t table_bytes = 0;
  uint64_t shard_count = 0;
};

// Errors and order as MakeModel; RESOURCE_EXHAUSTED: the disk is full.
Status MakeLayoutFolder(const MakeLayoutOptions& options, MadeLayout* made = nullptr);

}  // namespace engram::ctl
