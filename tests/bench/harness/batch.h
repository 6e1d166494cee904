// What every leg of a benchmark reads: batches of row ids from one fixed stream, and rows whose
// bytes are computed by rule, so that what comes back is compared and not assumed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/table/layout.h"

namespace engram::bench {

// Both procedural layouts have this many; a batch has as many rows of each.
inline constexpr size_t kLayers = 2;

struct Batch {
  uint64_t number = 0;
  std::array<std::span<const uint64_t>, kLayers> rows;  // ids of each layer

  size_t row_count() const { return rows[0].size() * kLayers; }
};

// Uniform ids of both layers, drawn once. Legs with cursors of their own read the same batches.
class IdPool {
 public:
  IdPool(const table::TableLayout& layout, uint64_t seed, size_t ids_per_layer);

  // Batch `number` of `row_count` rows (even, at most 2 * ids_per_layer); the pool is cycled.
  Batch At(uint64_t number, size_t row_count) const;

 private:
  std::array<std::vector<uint64_t>, kLayers> ids_;
};

// Compares rows with what they must be.
class RowVerifier {
 public:
  RowVerifier(const table::TableLayout& layout, uint64_t seed);

  // Compares every `every`-th row of the batch, a different residue each batch; 0 compares none.
  void Check(const Batch& batch, std::span<const std::byte> out, size_t every);

  uint64_t verified() const { return verified_; }
  uint64_t wrong() const { return wrong_; }

 private:
  const table::RowFormat format_;
  const uint64_t seed_;
  std::vector<std::byte> expected_;
  uint64_t verified_ = 0;
  uint64_t wrong_ = 0;
};

}  // namespace engram::bench
