// What verification found, as JSON and as text: the same from a store's folder and from a node.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/io/json.h"
#include "memnode/store/row_store.h"
#include "memnode/upkeep/verify.h"

namespace engram::memnode {

// Verifies one complete table set. {"model", "version", "content_digest", "holds_all", "bytes",
// "seconds", "layers": [{"layer_id", "partitions", "pages", "bad_partitions", "bad_pages"}],
// "damage": [{"layer_id", "partition", "page" (unless the partition as a whole), "why"}]}.
// NOT_FOUND: the store has no such version.
Result<json::object> VerifyVersion(RowStore& store, const std::string& model,
                                   const std::string& version, const VerifyOptions& options);

// For a person: one line of result, then one for each damaged layer and listed page.
// INVALID_ARGUMENT when the object is not VerifyVersion's.
Result<std::string> VerifyText(const json::object& report);
Result<bool> VerifiedSound(const json::object& report);

}  // namespace engram::memnode
