// Repairs damage in a store: rebuilds the whole file of partitions a damaged page lies in, from
// what of it is sound, the verified copy in memory, and the folder the table set was imported from.
// Bytes are written only once each partition of the file matches its SHA-256.
//
// Threads: any; one repair at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/table_source.h"
#include "memnode/store/manifest.h"
#include "memnode/store/row_store.h"
#include "memnode/store/table_reader.h"

namespace engram::memnode {

// Opens the folder recorded in a manifest and compares it with the manifest's identity.
Result<std::unique_ptr<client::TableSource>> OpenRecordedSource(const Manifest& manifest);

// One file of partitions that was written anew.
struct RepairedFile {
  TableSetId table_set = 0;  // whose file it is: the table set asked for, or a base
  std::string version;
  uint32_t layer_index = 0;
  int layer_id = 0;
  std::vector<uint32_t> partitions;
  uint64_t pages = 0;              // written
  uint64_t pages_from_memory = 0;  // of them; the others were sound
  uint64_t pages_from_source = 0;
};

struct RepairReport {
  std::vector<RepairedFile> files;  // empty: the partition was sound already
  // One line for a log: what was repaired, from where.
  std::string ToText() const;
};

class Repairer {
 public:
  // Copies rows [first_row, first_row + count) of a layer, all of one partition, from a verified
  // copy of the table set; false when it is not in memory. Any thread.
  using ReadMemory = std::function<bool(TableSetId table_set, uint32_t layer_index,
                                        uint64_t first_row, uint64_t count, std::byte* out)>;
  using OpenSource =
      std::function<Result<std::unique_ptr<client::TableSource>>(const Manifest& manifest)>;
  struct Options {
    ReadMemory read_memory;  // may be null
    OpenSource open_source = OpenRecordedSource;
  };

  Repairer(RowStore& store, Options options) : store_(store), options_(std::move(options)) {}

  // Makes a held partition whole again, in the files of the table set and of its bases. DATA_LOSS
  // says what is damaged and why no copy could be used; NOT_FOUND: no such table set.
  Result<RepairReport> Repair(const std::string& model, const std::string& version,
                              uint32_t layer_index, uint32_t partition);

  // No repair writes while it is held: for dropping table sets.
  [[nodiscard]] std::unique_lock<std::mutex> Pause() { return std::unique_lock(mutex_); }

 private:
  class Rebuild;

  RowStore& store_;
  const Options options_;
  std::mutex mutex_;
};

}  // namespace engram::memnode
