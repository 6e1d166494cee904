#include "memnode/load/verifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/base/check.h"

namespace engram::memnode::load {

std::string WrongRow::ToString() const {
  return fmt::format(
      "step {}: row {} of layer {} (index {}) differs at byte {}: expected 0x{:02x}, got 0x{:02x}",
      step, row, layer_id, layer_index, byte, expected, got);
}

Verifier::Verifier(const table::TableLayout& layout, const RowReference& reference)
    : layout_(layout), reference_(reference), expected_(layout.row_format.row_bytes()) {}

void Verifier::Check(uint64_t step, uint32_t layer_index, std::span<const uint64_t> rows,
                     std::span<const std::byte> bytes) {
  CHECK_EQ(bytes.size(), rows.size() * expected_.size());
  const std::byte* got = bytes.data();
  for (const uint64_t row : rows) {
    reference_.Fill(layer_index, row, expected_);
    if (std::memcmp(expected_.data(), got, expected_.size()) != 0) {
      if (figures_.wrong_rows++ == 0) Locate(step, layer_index, row, got);
    }
    got += expected_.size();
  }
  figures_.rows += rows.size();
}

void Verifier::Locate(uint64_t step, uint32_t layer_index, uint64_t row, const std::byte* got) {
  const auto differs = std::mismatch(expected_.begin(), expected_.end(), got).first;
  const auto byte = static_cast<size_t>(differs - expected_.begin());
  figures_.first = WrongRow{step,
                            layer_index,
                            layout_.layers[layer_index].layer_id,
                            row,
                            byte,
                            static_cast<uint8_t>(expected_[byte]),
                            static_cast<uint8_t>(got[byte])};
}

}  // namespace engram::memnode::load
