// What a table set *is*. A client presents the identity computed from its own config; a node
// refuses anything that differs, naming the first field that does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/table/layout.h"

namespace engram::table {

struct TableIdentity {
  std::string model;    // name, e.g. "tiny-7"
  std::string version;  // e.g. "1"
  uint32_t max_ngram_size = 0;
  uint32_t heads_per_order = 0;
  uint32_t head_dim = 0;
  std::string row_encoding;  // RowEncodingName
  uint64_t compressed_vocab_size = 0;
  int64_t pad_compressed = 0;
  struct Layer {
    int32_t layer_id = 0;
    uint64_t total_rows = 0;
    std::vector<int64_t> multipliers;
    std::vector<uint64_t> primes;
    bool operator==(const Layer&) const = default;
  };
  std::vector<Layer> layers;
  // SHA-256 (hex) over the digests of all partitions in (layer, partition) order; empty = not known
  // to this side, which a client that never saw the tables may be. Two non-empty digests must be
  // equal.
  std::string content_digest;
};

TableIdentity MakeIdentity(const TableLayout& layout, std::string model, std::string version);

// FAILED_PRECONDITION names the first differing field with both values ("ours" / `peer`). `peer` is
// the other side's name, e.g. "memory node 127.0.0.1:7400". An empty version on either side matches
// any.
Status CheckSameIdentity(const TableIdentity& ours, const TableIdentity& theirs,
                         std::string_view peer);

// 64-bit integers travel as decimal strings.
json::object ToJson(const TableIdentity& identity);
Result<TableIdentity> IdentityFromJson(const json::object& object);

}  // namespace engram::table
