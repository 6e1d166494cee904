// One safetensors shard of seeded tensors, drawn by all cores and written in bounded memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/base/status.h"
#include "memnode/ctl/make_model/model_tensors.h"

namespace engram::ctl {

Status WriteShard(const std::string& path, std::span<const ModelTensor> tensors, uint64_t seed);

}  // namespace engram::ctl
