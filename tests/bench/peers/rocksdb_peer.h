// RocksDB with one key a row, embedded in the client's process: no network, one core. Everything is
// in its block cache.
#pragma once

#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/table/layout.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

class RocksdbPeer {
 public:
  virtual ~RocksdbPeer() = default;
  // Writes every row of both layers below `folder`, compacts, and reads all once into the cache.
  static Result<std::unique_ptr<RocksdbPeer>> Fill(const table::TableLayout& layout, uint64_t seed,
                                                   const std::string& folder);
  virtual uint64_t disk_bytes() const = 0;
  virtual std::unique_ptr<BatchReader> MakeReader() = 0;
};

std::string RocksdbVersion();
std::string RocksdbSettings();

}  // namespace engram::bench
