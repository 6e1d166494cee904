#include "memnode/tables/row_origin.h"

#include <algorithm>

#include "common/table/row_check.h"
#include "memnode/tables/arena.h"

namespace engram::memnode {

Result<std::unique_ptr<StoredRows>> StoredRows::Open(RowStore& store, Manifest manifest,
                                                     StoreKeeper* keeper) {
  const TableSetId id = TableSetIdOf(manifest.identity.model, manifest.identity.version);
  TableReader::OnDamage on_damage;
  if (keeper != nullptr) {
    on_damage = [keeper, id](uint32_t layer_index, uint64_t page, const Status& why) {
      keeper->ReportDamage(id, layer_index, page, why);
    };
  }
  ASSIGN_OR_RETURN(auto reader, TableReader::Open(store, std::move(manifest), on_damage));
  return std::unique_ptr<StoredRows>(new StoredRows(std::move(reader), keeper));
}

Status StoredRows::LoadOnce(const PartitionPlace& place) const {
  const uint32_t row_bytes = reader_->row_bytes();
  const size_t stride = table::StoredRowBytes(row_bytes);
  const uint64_t first_row = reader_->cut(place.layer_index).FirstRow(place.partition);
  return reader_->ReadPartition(place.layer_index, place.partition,
                                [&](uint64_t first, std::span<const std::byte> rows) {
                                  SealRows(place.layer_index, first_row + first, rows, row_bytes,
                                           place.stored + first * stride);
                                });
}

Status StoredRows::Load(const PartitionPlace& place) const {
  const Status loaded = LoadOnce(place);
  if (loaded.code() != Code::kDataLoss || keeper_ == nullptr) return loaded;
  const table::TableIdentity& identity = reader_->manifest().identity;
  const Status repaired = keeper_->RepairPartition(identity.model, identity.version,
                                                   place.layer_index, place.partition, given_up());
  if (repaired.code() == Code::kCancelled) return repaired;
  if (!repaired.ok()) {
    return DataLoss(loaded.message() + "; and no repair: " + repaired.message());
  }
  return LoadOnce(place);
}

Status StoredRows::ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const {
  std::string scratch;
  const uint64_t page = reader_->PageOfRow(layer_index, row);
  ASSIGN_OR_RETURN(const auto rows, reader_->ReadPage(layer_index, page, &scratch));
  const uint64_t index = row - reader_->FirstRowOfPage(layer_index, page);
  std::copy_n(rows.data() + index * out.size(), out.size(), out.data());
  return OkStatus();
}

}  // namespace engram::memnode
