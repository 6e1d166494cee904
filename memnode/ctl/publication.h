// Publications over all nodes of a cluster (memnode/node/version_manager.h says how they are
// ordered, and what becomes of one whose tool dies).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "memnode/ctl/nodes.h"

namespace engram::ctl {

// One version as one node has it.
struct NodeVersion {
  std::string model, version, base, digest, problem;
  uint64_t rows_held = 0, stored_bytes = 0, generation = 0, prepared_generation = 0, readers = 0;
  uint64_t promised_generation = 0;
  // Of this node's share; older nodes do not send it.
  uint64_t partitions_in_memory = 0, partitions_owned = 0, bytes_in_memory = 0, bytes_owned = 0;
  bool published = false, prepared = false, pinned = false, rolled_back = false, loaded = false;
  bool incomplete = false;  // its import is under way, or was stopped
};
// INVALID_ARGUMENT when a reply is none of a memory node's.
Result<std::vector<NodeVersion>> VersionsOf(const json::object& reply);

// Publishes on all nodes, or, when one of them cannot, on none. Completes a publication that was
// interrupted, and heals a cluster whose nodes have published different versions. Returns the
// generation. With `rollback` VersionBefore passes over the version that was current, until it is
// published again. FAILED_PRECONDITION, and nothing is changed, while another tool publishes or
// drops versions of this model.
Result<uint64_t> Publish(const Nodes& nodes, const std::string& model, const std::string& version,
                         bool rollback = false);

// Ends a publication of this version that was begun and not decided. NOT_FOUND: none is under way;
// FAILED_PRECONDITION: a node has published it, so that it can only be completed.
Status AbortPublication(const Nodes& nodes, const std::string& model, const std::string& version);

// Drops the version on every node that has it, or on none when one of them needs it. NOT_FOUND: no
// node had it. After any other error it may be run again.
Status DropVersion(const Nodes& nodes, const std::string& model, const std::string& version);

// The version of the model that was published before the current one, leaving out those that were
// rolled back from: going back twice leads two versions back. FAILED_PRECONDITION: there is none.
Result<std::string> VersionBefore(const Nodes& nodes, const std::string& model);

}  // namespace engram::ctl
