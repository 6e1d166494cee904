// The manifest of one table set in a store: all a node must know to serve it again without the
// checkpoint. Written last, so its presence says that every page is there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/table/identity.h"
#include "common/table/placement.h"
#include "memnode/store/row_store.h"
#include "memnode/store/table_plan.h"

namespace engram::memnode {

struct Manifest {
  table::TableIdentity identity;  // with the content digest
  table::ClusterMap map;          // in force at import
  struct Layer {
    std::vector<uint32_t> held;         // partitions in this store, ascending
    std::vector<Sha256Digest> digests;  // of the row bytes of every partition, held or not
  };
  std::vector<Layer> layers;
  std::string base_version;  // of the same model; empty: a full version, else a delta on that one
  std::string source;        // the folder it was imported from, for repairs; may be gone
};

// The store's key of a model and version.
TableSetId TableSetIdOf(const std::string& model, const std::string& version);

// SHA-256 (hex) over all partition digests in (layer, partition) order.
std::string ContentDigest(const std::vector<Manifest::Layer>& layers);

std::string ManifestToText(const Manifest& manifest);
// DATA_LOSS says what is wrong; also checks digests against the content digest.
Result<Manifest> ParseManifest(std::string_view text);

// Complete table sets of a store. ParseManifest's errors, with the table set's key.
Result<std::optional<Manifest>> FindManifest(RowStore& store, const std::string& model,
                                             const std::string& version);
Result<std::vector<Manifest>> AllManifests(RowStore& store);
// The record that completes a table set: without it the table set does not exist.
std::string ManifestKey(const std::string& model, const std::string& version);
RecordChange ManifestRecord(const Manifest& manifest);
// Removes manifest, changed pages and import progress in one step, then the pages; also what an
// interrupted import left. No error when there is nothing.
Status DropTableSet(RowStore& store, const std::string& model, const std::string& version);

// True when every partition of the plan is held.
bool Covers(const Manifest& manifest, const TablePlan& plan);

}  // namespace engram::memnode
