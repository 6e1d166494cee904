// Seeded tensor contents: element i depends on (seed, tensor name, i) alone, so any part can be
// drawn by any thread in any order, and integer arithmetic makes it the same on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "memnode/ctl/make_model/model_tensors.h"

namespace engram::ctl {

uint64_t TensorSeed(uint64_t seed, std::string_view name);

// Elements [first, first + out.size() / element size) of `tensor`. `first` is a multiple of 8.
void FillTensor(const ModelTensor& tensor, uint64_t tensor_seed, uint64_t first,
                std::span<std::byte> out);

}  // namespace engram::ctl
