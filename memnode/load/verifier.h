// Compares rows that came back with the right ones, byte for byte, and remembers the first wrong
// one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/table/layout.h"
#include "memnode/load/tables.h"

namespace engram::memnode::load {

struct WrongRow {
  uint64_t step = 0;  // of the run, warm-up included
  uint32_t layer_index = 0;
  int layer_id = 0;
  uint64_t row = 0;
  size_t byte = 0;  // first one that differs
  uint8_t expected = 0;
  uint8_t got = 0;
  std::string ToString() const;
};

struct VerifyFigures {
  uint64_t rows = 0;
  uint64_t wrong_rows = 0;
  std::optional<WrongRow> first;
  double seconds = 0;  // spent comparing, outside every step's latency
};

class Verifier {
 public:
  // `reference` outlives this.
  Verifier(const table::TableLayout& layout, const RowReference& reference);
  // bytes: row i of `rows` at i * row_bytes.
  void Check(uint64_t step, uint32_t layer_index, std::span<const uint64_t> rows,
             std::span<const std::byte> bytes);
  VerifyFigures& figures() { return figures_; }

 private:
  void Locate(uint64_t step, uint32_t layer_index, uint64_t row, const std::byte* got);

  const table::TableLayout& layout_;
  const RowReference& reference_;
  std::vector<std::byte> expected_;  // one row
  VerifyFigures figures_;
};

}  // namespace engram::memnode::load
