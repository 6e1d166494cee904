// Rows that are not in memory, read from the store: many pages at once (a disk gives its random
// reads only to a deep queue), each page's CRC checked, each row sealed with its own check and kept
// in the row cache.
//
// A ColdBatch is what one request lacks. Its parts (the request's layers) complete separately, so
// that the early layer leaves first.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "memnode/store/table_reader.h"
#include "memnode/tables/row_cache.h"

namespace engram::memnode {

struct ColdRow {
  uint32_t part = 0;   // which of the request's layers
  uint32_t place = 0;  // which of that layer's rows
  uint32_t layer_index = 0;
  uint64_t row = 0;
};

class ColdBatch {
 public:
  // `rows` ordered by (part, place). `on_part` runs on a reader's thread each time a part has
  // arrived or failed; it may outlive its maker.
  ColdBatch(std::vector<ColdRow> rows, size_t part_count, uint32_t stored_row_bytes,
            std::function<void()> on_part);

  const std::vector<ColdRow>& rows() const { return rows_; }
  // Nothing of this part is on its way any more.
  bool Arrived(size_t part) const { return left_[part].load(std::memory_order_acquire) == 0; }
  // OK, or why a row of this part could not be read. The part has arrived.
  Status status(size_t part) const;
  // The stored row at a place of a part that has arrived well; null when it was not asked for.
  const std::byte* Find(size_t part, uint32_t place) const;

 private:
  friend class ColdReader;
  std::span<std::byte> Slot(size_t index);
  void Done(uint32_t part, uint32_t count, const Status& status);

  const std::vector<ColdRow> rows_;
  const uint32_t stored_row_bytes_;
  const std::function<void()> on_part_;
  std::vector<std::byte> bytes_;
  std::vector<std::atomic<uint32_t>> left_;  // rows to come, by part
  mutable std::mutex mutex_;
  std::vector<Status> status_;  // by part; guarded by mutex_
};

class ColdReader {
 public:
  struct Options {
    int threads = 32;
    size_t pending_rows_max = 1 << 18;
  };

  // `reader` and `cache` (may be null) outlive this. Starts fewer threads where the machine gives
  // no more; with none `started` says why, and nothing that is submitted is ever read.
  ColdReader(const TableReader& reader, RowCache* cache, const Options& options);
  ~ColdReader();  // what has not been read fails with CANCELLED
  const Status& started() const { return started_; }

  // False when pending_rows_max are on their way already: try again when some have arrived.
  bool Submit(const std::shared_ptr<ColdBatch>& batch);

  bool has_room() const { return pending_rows_ < options_.pending_rows_max; }

  uint64_t pages_read() const { return pages_read_; }

 private:
  // Rows of one page in one batch, by index into batch->rows().
  struct Job {
    std::shared_ptr<ColdBatch> batch;
    uint32_t layer_index = 0;
    uint64_t page = 0;
    std::vector<uint32_t> rows;
  };

  std::vector<uint32_t> TakeCached(ColdBatch& batch);
  void Run();
  void Read(const Job& job, std::string* scratch);

  const TableReader& reader_;
  RowCache* const cache_;
  const Options options_;
  std::atomic<size_t> pending_rows_ = 0;
  std::atomic<uint64_t> pages_read_ = 0;
  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<Job> jobs_;  // guarded by mutex_
  bool stop_ = false;     // guarded by mutex_
  Status started_;
  std::vector<std::thread> threads_;
};

}  // namespace engram::memnode
