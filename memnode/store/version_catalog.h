// What a store says of its versions: the manifests of complete ones, and one record `catalog/<id>`
// for each that was ever published, promised to a publication or pinned. Read by the node
// (version_manager) and, of a node that is down, by engramctl.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/store/manifest.h"
#include "memnode/store/row_store.h"

namespace engram::memnode {

struct VersionInfo {
  std::string model;
  std::string version;
  std::string base_version;    // empty: a full version
  std::string content_digest;  // empty: not complete
  uint64_t rows_held = 0;
  uint64_t generation = 0;  // of its last publication here; 0: never
  bool published = false;
  uint64_t promised_generation = 0;  // kept ready for that publication until it ends; 0: none
  bool pinned = false;
  bool rolled_back = false;  // from this one, since its last publication
  // Of a node that runs.
  uint64_t prepared_generation = 0;  // kept ready for that publication for a while; 0: none
  bool loaded = false;
  uint64_t readers = 0;     // sessions, and jobs under way
  std::string problem;      // why it should be loaded and is not
  bool incomplete = false;  // its import is under way, or was stopped; all else is empty

  bool Wanted() const {
    return published || promised_generation != 0 || prepared_generation != 0 || pinned;
  }
  // No publication that is known here has a higher one.
  uint64_t HighestGeneration() const {
    return std::max({generation, promised_generation, prepared_generation});
  }
};

// In the order of model and version. DATA_LOSS: a damaged record.
Result<std::vector<VersionInfo>> ReadVersions(RowStore& store);
void DescribeManifest(const Manifest& manifest, VersionInfo& info);
RecordChange CatalogRecord(const VersionInfo& info);

// A version is dropped by one write, after which it is gone, and by EndDrop, which gives the space
// back; the second may be run at any time later.
Status BeginDrop(RowStore& store, const std::string& model, const std::string& version);
// False when there is none to end. Not while the version is imported.
Result<bool> EndDrop(RowStore& store, const std::string& model, const std::string& version);
Status EndAllDrops(RowStore& store);

}  // namespace engram::memnode
