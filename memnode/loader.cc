#include "memnode/loader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <optional>

#include "common/client/checkpoint_tables.h"
#include "common/client/model_tables.h"
#include "common/io/safetensors.h"
#include "common/obs/log.h"
#include "memnode/importer.h"
#include "memnode/manifest.h"
#include "memnode/page.h"

namespace engram::memnode {
namespace {

constexpr char kImportAgain[] =
    "stop the node, remove the store and start with model.path set to import again";

Result<Manifest> Import(const LoadOptions& options, const client::ModelTables& model,
                        RowStore& store) {
  ASSIGN_OR_RETURN(const io::Checkpoint checkpoint, io::Checkpoint::Open(options.model_path));
  ASSIGN_OR_RETURN(const client::CheckpointTables tables,
                   client::CheckpointTables::Open(&checkpoint, model.config));
  RETURN_IF_ERROR(tables.CheckLayout(model.layout));
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(model.identity, options.map, options.member));
  obs::LogInfo(fmt::format("importing model={} version={} rows={} owned_rows={} from={}",
                           options.model_name, options.model_version, plan.TotalRows(),
                           plan.OwnedRows(), options.model_path));
  return ImportTables(tables, model.identity, options.map, plan, store);
}

// The manifest of a complete import of this model and version, if the store has one.
Result<std::optional<Manifest>> FindManifest(const LoadOptions& options, RowStore& store) {
  ASSIGN_OR_RETURN(const auto manifests, store.Manifests());
  const auto found = manifests.find(TableSetIdOf(options.model_name, options.model_version));
  if (found == manifests.end()) return std::optional<Manifest>();
  auto manifest = ParseManifest(found->second);
  if (!manifest.ok()) {
    return manifest.status().WithContext(fmt::format("table set {} version {} in the store",
                                                     options.model_name, options.model_version));
  }
  return std::optional<Manifest>(std::move(*manifest));
}

// The manifest to load by, after an import where one is needed.
Result<Manifest> FindOrImport(const LoadOptions& options, RowStore& store, bool* imported) {
  ASSIGN_OR_RETURN(std::optional<Manifest> found, FindManifest(options, store));
  std::error_code error;
  const bool has_folder = std::filesystem::is_directory(options.model_path, error);
  *imported = false;
  if (found && !has_folder) {
    ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(found->identity, options.map, options.member));
    if (Covers(*found, plan)) return std::move(*found);
    return FailedPrecondition(fmt::format(
        "the store was imported for members [{}] and lacks partitions that {} owns among [{}]: set "
        "model.path to the checkpoint to import them",
        fmt::join(found->map.members, ", "), options.member, fmt::join(options.map.members, ", ")));
  }
  ASSIGN_OR_RETURN(
      const client::ModelTables model,
      client::LoadModelTables(options.model_path, options.model_name, options.model_version));
  if (found) {
    const Status same =
        table::CheckSameIdentity(model.identity, found->identity, "the store in store.path");
    if (!same.ok()) {
      return FailedPrecondition(same.message() +
                                ": the store holds other tables under this name and version; use "
                                "another store.path or model.version");
    }
    ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(found->identity, options.map, options.member));
    if (Covers(*found, plan)) return std::move(*found);
  }
  *imported = true;
  return Import(options, model, store);
}

// Fills one partition of the arena and compares it with its digest.
Status LoadPartition(const Manifest& manifest, const TablePlan& plan, uint32_t layer_index,
                     uint32_t partition, RowStore& store, Arena& arena) {
  const LayerPlan& layer = plan.layers[layer_index];
  const uint64_t row_count = layer.cut.RowCount(partition);
  const uint32_t rows_per_page = layer.cut.rows_per_page;
  const uint64_t first = partition * layer.PagesPerPartition();
  const uint64_t page_count = (row_count + rows_per_page - 1) / rows_per_page;
  const TableSetId table_set = TableSetIdOf(manifest.identity.model, manifest.identity.version);
  Sha256 hash;
  RETURN_IF_ERROR(store.ReadPages(
      table_set, layer_index, first, page_count,
      [&](uint64_t page, std::span<const std::byte> bytes) -> Status {
        const uint64_t row = (page - first) * rows_per_page;
        const uint64_t expected = std::min<uint64_t>(rows_per_page, row_count - row);
        const auto page_rows = DecodePage(bytes, plan.row_bytes, expected);
        if (!page_rows.ok()) {
          return DataLoss(fmt::format("page {} of layer {} in the store is damaged: {}; {}", page,
                                      layer.layer_id, page_rows.status().message(), kImportAgain));
        }
        hash.Update(*page_rows);
        arena.PutRows(layer_index, partition, row, *page_rows);
        return OkStatus();
      }));
  if (hash.Finish() == manifest.layers[layer_index].digests[partition]) return OkStatus();
  return DataLoss(
      fmt::format("partition {} of layer {} in the store does not match its SHA-256; {}", partition,
                  layer.layer_id, kImportAgain));
}

}  // namespace

Result<LoadedTables> LoadTables(const LoadOptions& options, RowStore& store) {
  LoadedTables loaded;
  ASSIGN_OR_RETURN(const Manifest manifest, FindOrImport(options, store, &loaded.imported));
  loaded.identity = manifest.identity;
  ASSIGN_OR_RETURN(loaded.plan, MakePlan(manifest.identity, options.map, options.member));
  ASSIGN_OR_RETURN(loaded.arena, Arena::Allocate(loaded.plan, options.arena));
  for (uint32_t i = 0; i < loaded.plan.layers.size(); ++i) {
    for (const uint32_t partition : loaded.plan.layers[i].owned) {
      RETURN_IF_ERROR(LoadPartition(manifest, loaded.plan, i, partition, store, loaded.arena));
    }
  }
  return loaded;
}

}  // namespace engram::memnode
