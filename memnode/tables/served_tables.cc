#include "memnode/tables/served_tables.h"

#include <algorithm>

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "memnode/tables/partition_loader.h"

namespace engram::memnode {
namespace {

constexpr uint64_t kKnownAnswerSeed = 20261123;

// Of tables that were given as memory.
class NoOrigin final : public RowOrigin {
 public:
  Status Load(const PartitionPlace&) const override { return NothingToReadFrom(); }
  Status ReadRow(uint32_t, uint64_t, std::span<std::byte>) const override {
    return NothingToReadFrom();
  }

 private:
  static Status NothingToReadFrom() {
    return FailedPrecondition("these tables have no store to load rows from");
  }
};

// The first owned row and one anywhere in the owned partitions; none when nothing is owned.
std::vector<uint64_t> RowsToTell(const LayerPlan& layer, uint64_t seed) {
  if (layer.owned.empty()) return {};
  Rng rng(seed);
  const uint32_t partition = layer.owned[rng.NextBelow(layer.owned.size())];
  const uint64_t row = rng.NextBelow(layer.cut.RowCount(partition));
  return {layer.cut.FirstRow(layer.owned.front()), layer.cut.FirstRow(partition) + row};
}

}  // namespace

ServedTables::ServedTables(ServedParts parts, obs::Metrics& metrics) : parts_(std::move(parts)) {
  if (parts_.origin == nullptr) parts_.origin = std::make_unique<NoOrigin>();
  for (const LayerPlan& layer : plan().layers) {
    rows_served_.push_back(&metrics.GetCounter("engram_memnode_rows_served_total", "Rows sent",
                                               {{"model", identity().model},
                                                {"version", identity().version},
                                                {"layer", std::to_string(layer.layer_id)}}));
  }
}

Status ServedTables::ChooseKnownAnswers() {
  std::vector<std::byte> bytes(row_bytes());
  for (uint32_t i = 0; i < layer_count(); ++i) {
    for (const uint64_t row : RowsToTell(plan().layers[i], kKnownAnswerSeed + i)) {
      RETURN_IF_ERROR(ReadRow(i, row, bytes));
      Sha256 hash;
      hash.Update(bytes);
      known_answers_.push_back({.layer_index = i, .row = row, .sha256_hex = ToHex(hash.Finish())});
    }
  }
  return OkStatus();
}

ServedTables::Resident ServedTables::resident() const {
  Resident resident;
  for (const PartitionPlace& place : OwnedPartitions(plan())) {
    const uint64_t bytes =
        plan().layers[place.layer_index].cut.RowCount(place.partition) * stored_row_bytes();
    ++resident.partitions_owned;
    resident.bytes_owned += bytes;
    if (!IsResident(place.layer_index, place.partition)) continue;
    ++resident.partitions;
    resident.bytes += bytes;
  }
  return resident;
}

Status ServedTables::ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const {
  CHECK_EQ(out.size(), row_bytes());
  {
    const auto in_use = Use();
    const std::byte* address = nullptr;
    RETURN_IF_ERROR(Find(layer_index, {&row, 1}, {&address, 1}));
    if (address != nullptr) {
      std::copy_n(address, out.size(), out.data());
      return OkStatus();
    }
  }
  return origin().ReadRow(layer_index, row, out);
}

bool ServedTables::CopyRows(uint32_t layer_index, uint64_t first, std::span<std::byte> out) const {
  const auto in_use = Use();
  for (size_t at = 0; at < out.size(); at += row_bytes(), ++first) {
    const std::byte* address = nullptr;
    if (!Find(layer_index, {&first, 1}, {&address, 1}).ok() || address == nullptr) return false;
    std::copy_n(address, row_bytes(), out.data() + at);
  }
  return true;
}

}  // namespace engram::memnode
