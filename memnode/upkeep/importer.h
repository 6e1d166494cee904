// Import: rows of a source, cut into partitions, digested and written into the store as pages.
//
// Streams: `threads` workers each hold one file of pages (whole partitions, together at most 32
// MiB, at least one) at a time. Files are ingested in groups, and after each group a progress
// record tells which partitions are in and their digests, so that a killed import is resumed. The
// manifest is written last, after the source has been found unchanged. Partitions that the
// store holds already under this name (another member list) are kept; those that come in addition,
// and those that share a file with one of them, must have the digests that the manifest states.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "common/base/status.h"
#include "common/checkpoint/table_source.h"
#include "common/table/identity.h"
#include "memnode/store/manifest.h"
#include "memnode/store/row_store.h"
#include "memnode/store/table_plan.h"

namespace engram::memnode {

struct ImportProgress {
  uint64_t rows_done = 0;  // read and digested, of all members
  uint64_t rows_total = 0;
  uint64_t bytes_read = 0;     // in this run
  uint64_t bytes_written = 0;  // pages, in this run
  uint64_t pages_changed = 0;  // delta: pages that differ from the base
};

struct ImportOptions {
  int threads = 0;            // 0: four a CPU, as each waits for the disk a part of its time
  uint64_t memory_mib = 512;  // buffers of all workers together; fewer workers when it is short
  size_t ingest_files = 16;   // made durable together, 256 MiB: what a kill can cost
  std::string base_version;   // not empty: write a delta on this version of the same model
  // Where the store has no manifest of this version: another member's, of which nothing is held
  // here. May be null.
  const Manifest* known = nullptr;
  // Partitions that come in addition to those of a delta are written whole, so that their base is
  // not needed.
  bool whole_pages = false;
  std::string source;                                      // kept in the manifest, for repairs
  std::function<void(const ImportProgress&)> on_progress;  // on a worker, about 10 times a second
  const std::atomic<bool>* cancel = nullptr;               // CANCELLED soon after it is set
};

// `identity` without digest. Errors: the source's and the store's; FAILED_PRECONDITION when the
// base is missing or has other rows or another member list, or a kept partition differs (another
// source).
Result<Manifest> ImportTables(const client::TableSource& source,
                              const table::TableIdentity& identity, const table::ClusterMap& map,
                              const TablePlan& plan, RowStore& store,
                              const ImportOptions& options = {});

}  // namespace engram::memnode
