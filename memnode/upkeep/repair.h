// Repairs damage in a store: rebuilds the whole file of partitions a damaged page lies in, from
// what of it is sound, the verified copy in memory, and the folder the table set was imported from.
// Bytes are written only once each partition of the file matches its SHA-256.
//
// Threads: any; one repair at a time.
#pragma once

#include <atomic>
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
#include "memnode/tables/loaded_tables.h"

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
  using OpenSource =
      std::function<Result<std::unique_ptr<client::TableSource>>(const Manifest& manifest)>;

  // `store` and `copies` outlive it.
  Repairer(RowStore& store, const RowCopies& copies, OpenSource open_source = OpenRecordedSource)
      : store_(store), copies_(copies), open_source_(std::move(open_source)) {}

  // Makes a held partition whole again, in the files of the table set and of its bases. DATA_LOSS
  // says what is damaged and why no copy could be used; NOT_FOUND: no such table set; CANCELLED:
  // `given_up` (may be null) became true while another repair, or a pause, was waited for.
  Result<RepairReport> Repair(const std::string& model, const std::string& version,
                              uint32_t layer_index, uint32_t partition,
                              const std::atomic<bool>* given_up = nullptr);

  // No repair writes while it is held: for dropping table sets.
  [[nodiscard]] std::unique_lock<std::mutex> Pause() { return std::unique_lock(mutex_); }

 private:
  class Rebuild;

  RowStore& store_;
  const RowCopies& copies_;
  const OpenSource open_source_;
  std::mutex mutex_;
};

}  // namespace engram::memnode
