#include "memnode/node/loader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <optional>

#include "common/checkpoint/checkpoint_tables.h"
#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/safetensors.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

Result<Manifest> ImportModel(const ModelRequest& request, const client::ModelTables& model,
                             RowStore& store) {
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(request.model_path, model));
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(model.identity, request.map, request.member));
  obs::LogInfo(fmt::format("importing model={} version={} rows={} owned_rows={} from={}",
                           request.model_name, request.model_version, plan.TotalRows(),
                           plan.OwnedRows(), request.model_path));
  ImportOptions import = request.import;
  import.source = request.model_path;
  return ImportTables(*source, model.identity, request.map, plan, store, import);
}

}  // namespace

Result<FoundModel> FindOrImport(const ModelRequest& request, RowStore& store) {
  ASSIGN_OR_RETURN(std::optional<Manifest> found,
                   FindManifest(store, request.model_name, request.model_version));
  std::error_code error;
  const bool has_folder = std::filesystem::is_directory(request.model_path, error);
  if (found && !has_folder) {
    ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(found->identity, request.map, request.member));
    if (Covers(*found, plan)) return FoundModel{std::move(*found), false};
    return FailedPrecondition(fmt::format(
        "the store was imported for members [{}] and lacks partitions that {} owns among [{}]: set "
        "model.path to the checkpoint to import them",
        fmt::join(found->map.members, ", "), request.member, fmt::join(request.map.members, ", ")));
  }
  ASSIGN_OR_RETURN(
      const client::ModelTables model,
      client::LoadModelTables(request.model_path, request.model_name, request.model_version));
  if (found) {
    const Status same =
        table::CheckSameIdentity(model.identity, found->identity, "the store in store.path");
    if (!same.ok()) {
      return FailedPrecondition(same.message() +
                                ": the store holds other tables under this name and version; use "
                                "another store.path or model.version");
    }
    ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(found->identity, request.map, request.member));
    if (Covers(*found, plan)) return FoundModel{std::move(*found), false};
  }
  ASSIGN_OR_RETURN(Manifest manifest, ImportModel(request, model, store));
  return FoundModel{std::move(manifest), !found};
}

}  // namespace engram::memnode
