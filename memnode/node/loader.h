// Makes sure that a store holds this node's share of a model, importing it from the folder when it
// does not.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/table/placement.h"
#include "memnode/store/manifest.h"
#include "memnode/store/row_store.h"
#include "memnode/upkeep/importer.h"

namespace engram::memnode {

struct ModelRequest {
  std::string model_path;  // may be absent when the store is complete
  std::string model_name;
  std::string model_version;
  table::ClusterMap map;
  std::string member;
  ImportOptions import;  // its source is model_path
};

struct FoundModel {
  Manifest manifest;
  bool imported = false;  // by this call, which found nothing of it
};

// NOT_FOUND, INVALID_ARGUMENT: the folder; FAILED_PRECONDITION: the store holds other tables under
// this name and version; else ImportTables'.
Result<FoundModel> FindOrImport(const ModelRequest& request, RowStore& store);

}  // namespace engram::memnode
