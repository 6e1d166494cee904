// The manifest of one table set in a store: all a node must know to serve it again without the
// checkpoint. Written last, so its presence says that every page is there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/table/identity.h"
#include "common/table/placement.h"
#include "memnode/row_store.h"
#include "memnode/table_plan.h"

namespace engram::memnode {

struct Manifest {
  table::TableIdentity identity;  // with the content digest
  table::ClusterMap map;          // in force at import
  struct Layer {
    std::vector<uint32_t> held;         // partitions in this store, ascending
    std::vector<Sha256Digest> digests;  // of the row bytes of every partition, held or not
  };
  std::vector<Layer> layers;
};

// The store's key of a model and version.
TableSetId TableSetIdOf(const std::string& model, const std::string& version);

// SHA-256 (hex) over all partition digests in (layer, partition) order.
std::string ContentDigest(const std::vector<Manifest::Layer>& layers);

std::string ManifestToText(const Manifest& manifest);
// DATA_LOSS says what is wrong; also checks digests against the content digest.
Result<Manifest> ParseManifest(std::string_view text);

// True when every partition of the plan is held.
bool Covers(const Manifest& manifest, const TablePlan& plan);

}  // namespace engram::memnode
