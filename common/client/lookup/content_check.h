// Whether the rows that memory nodes serve are those of the model folder a client has. The folder
// may hold the tables, some of them, or none; it may hold a file that names their content digest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/table_source.h"
#include "common/client/lookup/client.h"

namespace engram::client {

// Beside config.json: the tables' content digest and a line break (`engramctl digest --write`).
inline constexpr const char* kDigestFile = "engram_content_digest.txt";

// The digest this client insists on: the setting's, else the file's, else "". INVALID_ARGUMENT: one
// that is not 64 lower-case hexadecimal digits, or a setting and a file that differ.
Result<std::string> PinnedDigest(const std::string& model_dir, const std::string& setting);
Status WriteDigestFile(const std::string& model_dir, const std::string& digest);

// A layer of up to kWholeRows rows is compared in full, of a larger one kSampledRows: one at random
// out of each of as many equal slices, the same ones each time. The known answers come on top.
inline constexpr uint64_t kWholeRows = 1 << 16;
inline constexpr uint64_t kSampledRows = 512;

std::vector<uint64_t> RowsToCompare(uint32_t layer_index, uint64_t total_rows);  // ascending

// Compares rows that the nodes serve in one layer with those of `own`, whose only layer is the same
// one; returns how many. FAILED_PRECONDITION names the first row that differs, its layer's id, and
// both SHA-256; `folder` is for messages, `timeout` of each lookup. Else the lookup's or the
// folder's errors.
Result<uint64_t> CompareLayer(LookupClient& nodes, uint32_t layer_index, const TableSource& own,
                              const std::string& folder, Nanos timeout);

struct ContentComparison {
  uint64_t rows = 0;               // found equal
  std::vector<int> layers_absent;  // layer ids whose tables are not in the folder
};
// CompareLayer for every layer whose table the folder holds.
Result<ContentComparison> CompareContent(LookupClient& nodes, const std::string& model_dir,
                                         const ModelTables& tables, Nanos timeout);

}  // namespace engram::client
