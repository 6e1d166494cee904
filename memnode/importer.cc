#include "memnode/importer.h"

#include <fmt/format.h>

#include <future>
#include <string>
#include <vector>

#include "memnode/page.h"

namespace engram::memnode {
namespace {

Sha256Digest DigestOf(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

// One partition's rows as pages.
Status PutPartition(std::span<const std::byte> rows, uint32_t layer_index, uint32_t partition,
                    const LayerPlan& plan, uint32_t row_bytes, std::string* scratch,
                    PageWriter& writer) {
  const size_t page_row_bytes = size_t{plan.cut.rows_per_page} * row_bytes;
  uint64_t page = partition * plan.PagesPerPartition();
  for (size_t at = 0; at < rows.size(); at += page_row_bytes, ++page) {
    EncodePage(rows.subspan(at, std::min(page_row_bytes, rows.size() - at)), row_bytes, scratch);
    RETURN_IF_ERROR(writer.Put(layer_index, page, std::as_bytes(std::span(*scratch))));
  }
  return OkStatus();
}

// Digests all partitions of a layer and stores the owned ones.
Result<Manifest::Layer> ImportLayer(const client::TableSource& source, uint32_t layer_index,
                                    const LayerPlan& plan, uint32_t row_bytes, PageWriter& writer) {
  Manifest::Layer layer;
  layer.held = plan.owned;
  std::vector<std::byte> buffer(plan.cut.RowCount(0) * row_bytes);
  std::string page;
  auto next_owned = plan.owned.begin();
  for (uint32_t partition = 0; partition < plan.cut.partition_count; ++partition) {
    const uint64_t row_count = plan.cut.RowCount(partition);
    const std::span<std::byte> rows = std::span(buffer).first(row_count * row_bytes);
    RETURN_IF_ERROR(
        source.ReadRows(layer_index, plan.cut.FirstRow(partition), row_count, rows.data()));
    if (next_owned == plan.owned.end() || *next_owned != partition) {
      layer.digests.push_back(DigestOf(rows));
      continue;
    }
    ++next_owned;
    auto digest = std::async(std::launch::async, [rows] { return DigestOf(rows); });
    const Status put = PutPartition(rows, layer_index, partition, plan, row_bytes, &page, writer);
    layer.digests.push_back(digest.get());
    RETURN_IF_ERROR(put);
  }
  return layer;
}

}  // namespace

Result<Manifest> ImportTables(const client::TableSource& source,
                              const table::TableIdentity& identity, const table::ClusterMap& map,
                              const TablePlan& plan, RowStore& store,
                              const ImportOptions& options) {
  const TableSetId table_set = TableSetIdOf(identity.model, identity.version);
  RETURN_IF_ERROR(DropTableSet(store, identity.model, identity.version));
  ASSIGN_OR_RETURN(std::unique_ptr<PageWriter> writer, store.NewFile(table_set));
  Manifest manifest{
      .identity = identity, .map = map, .layers = {}, .base_version = {}, .source = options.source};
  for (uint32_t i = 0; i < plan.layers.size(); ++i) {
    ASSIGN_OR_RETURN(auto layer, ImportLayer(source, i, plan.layers[i], plan.row_bytes, *writer));
    manifest.layers.push_back(std::move(layer));
  }
  RETURN_IF_ERROR(writer->Finish());
  std::vector<std::unique_ptr<PageWriter>> files;
  files.push_back(std::move(writer));
  RETURN_IF_ERROR(store.Ingest(std::move(files)));
  manifest.identity.content_digest = ContentDigest(manifest.layers);
  const RecordChange record = ManifestRecord(manifest);
  RETURN_IF_ERROR(store.WriteRecords({&record, 1}));
  return manifest;
}

}  // namespace engram::memnode
