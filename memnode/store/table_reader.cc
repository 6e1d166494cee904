#include "memnode/store/table_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "memnode/store/page.h"

namespace engram::memnode {
namespace {

std::string ChangedPagesPrefix(TableSetId table_set) {
  return fmt::format("changed/{:016x}/", table_set);
}

// Layer index and partition at the end of a ChangedPagesKey.
bool ParseChangedKey(std::string_view rest, uint32_t* layer_index, uint32_t* partition) {
  const size_t slash = rest.find('/');
  if (slash == std::string_view::npos) return false;
  const char* end = rest.data() + rest.size();
  const auto layer = std::from_chars(rest.data(), rest.data() + slash, *layer_index);
  const auto part = std::from_chars(rest.data() + slash + 1, end, *partition);
  return layer.ec == std::errc() && part.ec == std::errc() && part.ptr == end;
}

}  // namespace

std::string ChangedPagesKey(TableSetId table_set, uint32_t layer_index, uint32_t partition) {
  return fmt::format("{}{}/{}", ChangedPagesPrefix(table_set), layer_index, partition);
}

TableReader::TableReader(RowStore& store, Manifest manifest, OnDamage on_damage)
    : store_(store),
      manifest_(std::move(manifest)),
      id_(TableSetIdOf(manifest_.identity.model, manifest_.identity.version)),
      on_damage_(std::move(on_damage)) {}

Result<std::unique_ptr<TableReader>> TableReader::Open(RowStore& store, Manifest manifest,
                                                       const OnDamage& on_damage) {
  std::unique_ptr<TableReader> top;
  TableReader* last = nullptr;
  for (int depth = 0; depth <= kBasesMax; ++depth) {
    std::unique_ptr<TableReader> reader(new TableReader(store, std::move(manifest), on_damage));
    ASSIGN_OR_RETURN(const table::RowFormat format, FormatOf(reader->manifest_.identity));
    reader->row_bytes_ = format.row_bytes();
    for (const auto& layer : reader->manifest_.identity.layers) {
      reader->cuts_.push_back(table::CutLayer(layer.total_rows, reader->row_bytes_));
    }
    const std::string base = reader->manifest_.base_version;
    const std::string model = reader->manifest_.identity.model;
    const std::string version = reader->manifest_.identity.version;
    if (!base.empty()) RETURN_IF_ERROR(reader->LoadChangedPages());
    auto& place = last == nullptr ? top : last->base_;
    place = std::move(reader);
    last = place.get();
    if (base.empty()) return top;
    ASSIGN_OR_RETURN(auto found, FindManifest(store, model, base));
    if (!found) {
      return FailedPrecondition(fmt::format(
          "version {} of {} is a delta on version {}, which the store lacks: import that first",
          version, model, base));
    }
    manifest = std::move(*found);
  }
  return FailedPrecondition(
      fmt::format("a chain of more than {} deltas: import a full version instead", kBasesMax));
}

Status TableReader::LoadChangedPages() {
  const std::string prefix = ChangedPagesPrefix(id_);
  ASSIGN_OR_RETURN(auto records, store_.ReadRecords(prefix));
  changed_.resize(cuts_.size());
  for (size_t i = 0; i < cuts_.size(); ++i) changed_[i].resize(cuts_[i].partition_count);
  for (auto& [key, bits] : records) {
    uint32_t layer = 0, partition = 0;
    if (!ParseChangedKey(std::string_view(key).substr(prefix.size()), &layer, &partition) ||
        layer >= cuts_.size() || partition >= cuts_[layer].partition_count ||
        bits.size() != (PageCount(layer, partition) + 7) / 8) {
      return DataLoss(fmt::format("record {} of the store is damaged", key));
    }
    changed_[layer][partition] = std::move(bits);
  }
  return OkStatus();
}

uint64_t TableReader::FirstPage(uint32_t layer_index, uint32_t partition) const {
  const table::LayerPartitions& cut = cuts_[layer_index];
  return partition * (cut.rows_per_partition / cut.rows_per_page);
}

uint64_t TableReader::PageCount(uint32_t layer_index, uint32_t partition) const {
  const table::LayerPartitions& cut = cuts_[layer_index];
  return (cut.RowCount(partition) + cut.rows_per_page - 1) / cut.rows_per_page;
}

uint64_t TableReader::PageOfRow(uint32_t layer_index, uint64_t row) const {
  return row / cuts_[layer_index].rows_per_page;
}

uint64_t TableReader::FirstRowOfPage(uint32_t layer_index, uint64_t page) const {
  return page * cuts_[layer_index].rows_per_page;
}

uint64_t TableReader::RowCountOfPage(uint32_t layer_index, uint64_t page) const {
  const table::LayerPartitions& cut = cuts_[layer_index];
  return std::min<uint64_t>(cut.rows_per_page, cut.total_rows - page * cut.rows_per_page);
}

bool TableReader::Holds(uint32_t layer_index, uint64_t page) const {
  if (base_ == nullptr) return true;
  const table::LayerPartitions& cut = cuts_[layer_index];
  const uint64_t pages = cut.rows_per_partition / cut.rows_per_page;
  const std::string& bits = changed_[layer_index][page / pages];
  const uint64_t i = page % pages;
  return !bits.empty() && ((static_cast<uint8_t>(bits[i / 8]) >> (i % 8)) & 1) != 0;
}

TableSetId TableReader::HolderOf(uint32_t layer_index, uint64_t page) const {
  const TableReader* reader = this;
  while (!reader->Holds(layer_index, page)) reader = reader->base_.get();
  return reader->id_;
}

Status TableReader::Damaged(uint32_t layer_index, uint64_t page, const Status& why) const {
  const Status status =
      DataLoss(fmt::format("page {} of layer {} of {} version {} in the store is damaged: {}", page,
                           manifest_.identity.layers[layer_index].layer_id,
                           manifest_.identity.model, manifest_.identity.version, why.message()));
  if (on_damage_) on_damage_(layer_index, page, status);
  return status;
}

Result<std::span<const std::byte>> TableReader::Decode(uint32_t layer_index, uint64_t page,
                                                       std::span<const std::byte> bytes) const {
  auto rows = DecodePage(bytes, row_bytes_, RowCountOfPage(layer_index, page));
  if (!rows.ok()) return Damaged(layer_index, page, rows.status());
  return rows;
}

Result<std::span<const std::byte>> TableReader::ReadPage(uint32_t layer_index, uint64_t page,
                                                         std::string* scratch) const {
  const Status read = store_.ReadPage(HolderOf(layer_index, page), layer_index, page, scratch);
  if (read.code() == Code::kDataLoss) return Damaged(layer_index, page, read);
  RETURN_IF_ERROR(read);
  return Decode(layer_index, page, std::as_bytes(std::span(*scratch)));
}

// Runs of pages with one holder, each read ahead.
Status TableReader::VisitPages(uint32_t layer_index, uint64_t first, uint64_t count,
                               const RowStore::Visitor& visit) const {
  const uint64_t end = first + count;
  while (first < end) {
    const TableSetId holder = HolderOf(layer_index, first);
    uint64_t next = first + 1;
    while (next < end && HolderOf(layer_index, next) == holder) ++next;
    uint64_t at = first;   // the page to come
    bool visited = false;  // the visitor saw page `at`, so an error is its own
    const Status read = store_.ReadPages(holder, layer_index, first, next - first,
                                         [&](uint64_t page, std::span<const std::byte> bytes) {
                                           visited = true;
                                           RETURN_IF_ERROR(visit(page, bytes));
                                           visited = false;
                                           ++at;
                                           return OkStatus();
                                         });
    if (read.code() == Code::kDataLoss && !visited) return Damaged(layer_index, at, read);
    RETURN_IF_ERROR(read);
    first = next;
  }
  return OkStatus();
}

Status TableReader::ReadPartition(uint32_t layer_index, uint32_t partition,
                                  const Visitor& visit) const {
  const uint64_t first = FirstPage(layer_index, partition);
  const uint64_t rows_per_page = cuts_[layer_index].rows_per_page;
  Sha256 hash;
  RETURN_IF_ERROR(VisitPages(layer_index, first, PageCount(layer_index, partition),
                             [&](uint64_t page, std::span<const std::byte> bytes) -> Status {
                               ASSIGN_OR_RETURN(const auto rows, Decode(layer_index, page, bytes));
                               hash.Update(rows);
                               visit((page - first) * rows_per_page, rows);
                               return OkStatus();
                             }));
  if (hash.Finish() == manifest_.layers[layer_index].digests[partition]) return OkStatus();
  return DataLoss(
      fmt::format("partition {} of layer {} of {} version {} does not match its SHA-256", partition,
                  manifest_.identity.layers[layer_index].layer_id, manifest_.identity.model,
                  manifest_.identity.version));
}

}  // namespace engram::memnode
