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
#include "memnode/table_reader.h"

namespace engram::memnode {
namespace {

constexpr char kImportAgain[] =
    "stop the node, remove the store and start with model.path set to import again";

Result<Manifest> Import(const LoadOptions& options, const client::ModelTables& model,
                        RowStore& store) {
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(options.model_path, model));
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(model.identity, options.map, options.member));
  obs::LogInfo(fmt::format("importing model={} version={} rows={} owned_rows={} from={}",
                           options.model_name, options.model_version, plan.TotalRows(),
                           plan.OwnedRows(), options.model_path));
  ImportOptions import;
  import.source = options.model_path;
  return ImportTables(*source, model.identity, options.map, plan, store, import);
}

// The manifest to load by, after an import where one is needed.
Result<Manifest> FindOrImport(const LoadOptions& options, RowStore& store, bool* imported) {
  ASSIGN_OR_RETURN(std::optional<Manifest> found,
                   FindManifest(store, options.model_name, options.model_version));
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

}  // namespace

Result<LoadedTables> LoadTables(const LoadOptions& options, RowStore& store) {
  LoadedTables loaded;
  ASSIGN_OR_RETURN(const Manifest manifest, FindOrImport(options, store, &loaded.imported));
  loaded.identity = manifest.identity;
  ASSIGN_OR_RETURN(loaded.plan, MakePlan(manifest.identity, options.map, options.member));
  ASSIGN_OR_RETURN(loaded.arena, Arena::Allocate(loaded.plan, options.arena));
  ASSIGN_OR_RETURN(const auto reader, TableReader::Open(store, manifest));
  for (uint32_t i = 0; i < loaded.plan.layers.size(); ++i) {
    for (const uint32_t partition : loaded.plan.layers[i].owned) {
      const Status read =
          reader->ReadPartition(i, partition, [&](uint64_t first, std::span<const std::byte> rows) {
            loaded.arena.PutRows(i, partition, first, rows);
          });
      if (!read.ok()) return Status(read.code(), read.message() + "; " + kImportAgain);
    }
  }
  return loaded;
}

}  // namespace engram::memnode
