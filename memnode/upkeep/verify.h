// Reads a whole table set of a store and says what of it is damaged. Goes on after damage, page by
// page within a damaged partition, so that the report is complete. engramctl verify, offline and by
// way of a node.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "memnode/store/row_store.h"
#include "memnode/store/table_reader.h"

namespace engram::memnode {

struct Damage {
  TableSetId table_set = 0;  // as it is read; the page may lie in a base's file
  uint32_t layer_index = 0;
  uint32_t partition = 0;
  std::optional<uint64_t> page;  // nullopt: every page is sound, but the SHA-256 does not match
  std::string why;
};

// The damaged or missing pages of one held partition; empty: sound. Reads each page by itself.
// `reader` reports them to its on_damage, too.
std::vector<Damage> FindDamage(const TableReader& reader, uint32_t layer_index, uint32_t partition);

struct VerifyProgress {
  uint64_t pages_done = 0;
  uint64_t pages_total = 0;
  uint64_t bytes_done = 0;
  uint64_t bad_pages = 0;
};

struct VerifyOptions {
  int threads = 0;       // 0: one a CPU
  double mib_per_s = 0;  // of rows, all threads together; 0: as fast as it goes
  size_t listed_max = 1000;
  // On a worker, about 10 times a second.
  std::function<void(const VerifyProgress&)> on_progress = {};
  // On a worker, for each damage as it is found: a page of it.
  std::function<void(TableSetId table_set, uint32_t layer_index, uint64_t page)> on_damage = {};
  const std::atomic<bool>* cancel = nullptr;  // CANCELLED soon after it is set
  const Clock* clock = &Clock::Real();
};

struct VerifyReport {
  struct Layer {
    int layer_id = 0;
    uint64_t partitions = 0;  // checked, all that the store holds
    uint64_t pages = 0;
    uint64_t bad_partitions = 0;  // with bad pages, or whose SHA-256 does not match
    uint64_t bad_pages = 0;
  };
  std::vector<Layer> layers;
  std::vector<Damage> damage;  // in order, the first listed_max
  uint64_t bytes = 0;          // of rows
  double seconds = 0;
  // Every partition of the table set is held here, so the content digest is proven as a whole.
  bool holds_all = false;

  uint64_t partitions() const;
  uint64_t pages() const;
  uint64_t bad_partitions() const;
  uint64_t bad_pages() const;
  bool sound() const { return bad_partitions() == 0; }
};

Result<VerifyReport> VerifyTables(const TableReader& reader, const VerifyOptions& options = {});

}  // namespace engram::memnode
