// What every maker of a model folder does: an empty folder first, config.json last.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "memnode/ctl/make_model/model_tensors.h"

namespace engram::ctl {

// Creates the folder. ALREADY_EXISTS when it is not empty and `force` is not set; else what makes
// it a model is removed, config.json included.
Status PrepareFolder(const std::string& out, bool force);

// RESOURCE_EXHAUSTED: the disk is full.
Status WriteBytes(const std::filesystem::path& path, std::string_view bytes);

// model-0000N-of-0000M.safetensors and their index.
Status WriteShards(const std::string& out, std::span<const std::vector<ModelTensor>> shards,
                   uint64_t seed);

}  // namespace engram::ctl
