// The store that was not built: RocksDB with one key a row, to show what pages are for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/checkpoint/table_source.h"

namespace rocksdb {
class DB;
}

namespace engram::bench {

class RowPerKey {
 public:
  // Bulk-loads all rows as sorted files, as our own import does: 8-byte keys, bloom filter of 10
  // bits, CRC-32C, no compression, read past the page cache. No block cache, as in our store.
  static Result<std::unique_ptr<RowPerKey>> Load(const client::TableSource& source,
                                                 const std::string& folder);
  ~RowPerKey();

  // Replaces *bytes.
  Status Read(uint32_t layer_index, uint64_t row, std::string* bytes) const;

 private:
  RowPerKey() = default;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace engram::bench
