#include "tests/bench/harness/batch.h"

#include <cstring>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/table/procedural.h"

namespace engram::bench {

IdPool::IdPool(const table::TableLayout& layout, uint64_t seed, size_t ids_per_layer) {
  CHECK_EQ(layout.layers.size(), kLayers);
  for (size_t layer = 0; layer < kLayers; ++layer) {
    Rng rng(Mix64(seed, layer));
    ids_[layer].resize(ids_per_layer);
    for (uint64_t& id : ids_[layer]) id = rng.NextBelow(layout.layers[layer].total_rows);
  }
}

Batch IdPool::At(uint64_t number, size_t row_count) const {
  const size_t per_layer = row_count / kLayers;
  const size_t batches = ids_[0].size() / per_layer;
  CHECK_GE(batches, 1u);
  const size_t first = static_cast<size_t>(number % batches) * per_layer;
  Batch batch;
  batch.number = number;
  for (size_t layer = 0; layer < kLayers; ++layer) {
    batch.rows[layer] = std::span(ids_[layer]).subspan(first, per_layer);
  }
  return batch;
}

RowVerifier::RowVerifier(const table::TableLayout& layout, uint64_t seed)
    : format_(layout.row_format), seed_(seed), expected_(layout.row_format.row_bytes()) {}

void RowVerifier::Check(const Batch& batch, std::span<const std::byte> out, size_t every) {
  if (every == 0) return;
  const size_t per_layer = batch.rows[0].size();
  for (size_t i = batch.number % every; i < batch.row_count(); i += every) {
    const size_t layer = i / per_layer;
    table::FillProceduralRow(format_, seed_, static_cast<uint32_t>(layer),
                             batch.rows[layer][i % per_layer], expected_);
    ++verified_;
    const std::byte* got = out.data() + i * expected_.size();
    if (std::memcmp(got, expected_.data(), expected_.size()) != 0) ++wrong_;
  }
}

}  // namespace engram::bench
