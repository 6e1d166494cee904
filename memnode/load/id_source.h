// Where the load tester's row ids come from.
#pragma once

#include <cstdint>
#include <span>

#include "common/base/rng.h"
#include "common/table/layout.h"

namespace engram::memnode::load {

// Every row of a layer equally likely: the worst case for caches and duplicates alike.
class UniformIds {
 public:
  UniformIds(const table::TableLayout& layout, uint64_t seed) : layout_(layout), rng_(seed) {}

  void Fill(uint32_t layer_index, std::span<uint64_t> rows) {
    const uint64_t total = layout_.layers[layer_index].total_rows;
    for (uint64_t& row : rows) row = rng_.NextBelow(total);
  }

 private:
  const table::TableLayout& layout_;
  Rng rng_;
};

}  // namespace engram::memnode::load
