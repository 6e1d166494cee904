// One open RocksDB database with the two families of a store, which can be opened anew below the
// threads that use it; part of rocks_store.
//
// Threads: any, several at once. Errors as RowStore's.
#pragma once

#include <rocksdb/db.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace engram::memnode::rocks {

class RocksDatabase {
 public:
  RocksDatabase(std::string path, bool read_only)
      : path_(std::move(path)), read_only_(read_only), stopped_(std::make_shared<Flag>(false)) {}
  ~RocksDatabase() { Close(); }

  // Where a table file is missing or cut short, the database is open all the same: its pages are
  // found to be damaged when they are read.
  Status Open();

  // The handles below hold while it lives, in the thread that made it. A thread that waits to open
  // the database again goes before further uses, but for those that a using thread makes meanwhile,
  // as the visitor of a read does.
  class [[nodiscard]] Use {
   public:
    Use(const RocksDatabase& of, std::shared_lock<std::shared_mutex> lock);
    Use(Use&& other) noexcept
        : of_(std::exchange(other.of_, nullptr)), lock_(std::move(other.lock_)) {}
    ~Use();

   private:
    const RocksDatabase* of_;                   // null: moved from
    std::shared_lock<std::shared_mutex> lock_;  // of the thread's first use
  };
  // Fails where the database could not be opened again even for reading.
  Result<Use> Hold();
  rocksdb::DB* operator->() const { return db_.get(); }
  rocksdb::DB* get() const { return db_.get(); }
  rocksdb::ColumnFamilyHandle* records() const { return families_[0]; }
  rocksdb::ColumnFamilyHandle* pages() const { return families_[1]; }
  bool direct_reads() const { return direct_reads_; }

  // Whether an error of the disk has stopped the database since it was opened: set by RocksDB, or
  // by Stop(). It takes no changes then, and Resume does not help in RocksDB 7.8: the next
  // ingestion would end the process, and the next record might go behind a torn one.
  bool stopped() const { return stopped_->load(); }
  void Stop() { stopped_->store(true); }
  bool writable() const { return !stopped() && !fallen_back_; }
  // OK where changes can be made. Opens a database that is stopped again, once no thread uses it;
  // where the disk has no room for that it is open for reading, and the next call tries again.
  // UNAVAILABLE: it is to be opened again, and this thread uses it. Called without a lock that a
  // thread may take while it uses the database.
  Status EnsureWritable();

 private:
  using Flag = std::atomic<bool>;

  Status OpenWith(rocksdb::DBOptions options, bool read_only);
  rocksdb::Status OpenOnce(const rocksdb::DBOptions& options, bool read_only);
  void Close();

  const std::string path_;
  const bool read_only_;
  const std::shared_ptr<Flag> stopped_;  // set by RocksDB's threads
  std::atomic<bool> direct_reads_ = false;
  std::atomic<bool> fallen_back_ = false;  // open for reading because it could not be opened again

  std::mutex entrance_;      // taken for a moment by every use, held while it is opened again
  std::shared_mutex users_;  // shared by uses; guards what follows
  Status closed_;            // why there is no database
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;  // records, pages
};

}  // namespace engram::memnode::rocks
