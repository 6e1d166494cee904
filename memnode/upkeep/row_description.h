// Describes one stored row for engramctl dump: from a store, by way of a node, or from the model
// folder it was imported from.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"
#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/table_source.h"
#include "common/io/json.h"
#include "memnode/store/row_store.h"

namespace engram::memnode {

// {"model", "version", "layer_id", "row", "encoding", "head_dim", "bytes" (hex), "row_check",
// "sha256", "values" (decimal), "partition", "first_row_of_partition", "rows_of_partition",
// "page", "row_in_page", "rows_of_page", "first_partition_of_file", "last_partition_of_file"}; from
// a store also "owner", "holder_version", "page_crc32c", "partition_sha256".
// NOT_FOUND: version or layer; OUT_OF_RANGE: row; DATA_LOSS: its page is damaged.
Result<json::object> DescribeStoredRow(RowStore& store, const std::string& model,
                                       const std::string& version, int layer_id, uint64_t row);
Result<json::object> DescribeSourceRow(const client::ModelTables& model,
                                       const client::TableSource& source, int layer_id,
                                       uint64_t row);

// For a person. INVALID_ARGUMENT when the object is none of these.
Result<std::string> RowText(const json::object& description);

}  // namespace engram::memnode
