#include "memnode/store/rocks_database.h"

#include <fmt/format.h>
#include <rocksdb/listener.h>

#include <algorithm>
#include <system_error>

#include "memnode/store/rocks_files.h"
#include "memnode/store/rocks_log_check.h"
#include "memnode/store/rocks_options.h"

namespace engram::memnode::rocks {
namespace {

constexpr char kPagesFamily[] = "pages";

class ErrorListener : public rocksdb::EventListener {
 public:
  explicit ErrorListener(std::shared_ptr<std::atomic<bool>> stopped)
      : stopped_(std::move(stopped)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status*) override {
    stopped_->store(true);
  }
  // RocksDB would check a full disk every 5 s, and refuse Resume meanwhile.
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

 private:
  const std::shared_ptr<std::atomic<bool>> stopped_;
};

// The databases that this thread uses now, one of several uses several times.
thread_local std::vector<const RocksDatabase*> in_use;

bool UsedByThisThread(const RocksDatabase* database) {
  return std::find(in_use.begin(), in_use.end(), database) != in_use.end();
}

std::vector<rocksdb::ColumnFamilyDescriptor> Families() {
  return {{rocksdb::kDefaultColumnFamilyName, RecordsOptions()}, {kPagesFamily, PagesOptions()}};
}

}  // namespace

Status RocksDatabase::Open() {
  const std::lock_guard lock(users_);
  return OpenWith(read_only_ ? ReadOnlyOptions(path_) : StoreOptions(path_), read_only_);
}

RocksDatabase::Use::Use(const RocksDatabase& of, std::shared_lock<std::shared_mutex> lock)
    : of_(&of), lock_(std::move(lock)) {
  in_use.push_back(of_);
}

RocksDatabase::Use::~Use() {
  if (of_ != nullptr) in_use.erase(std::find(in_use.begin(), in_use.end(), of_));
}

Result<RocksDatabase::Use> RocksDatabase::Hold() {
  if (UsedByThisThread(this)) return Use(*this, {});  // to wait here would be to wait for itself
  const std::lock_guard in(entrance_);
  std::shared_lock lock(users_);
  if (db_ == nullptr) return closed_;
  return Use(*this, std::move(lock));
}

Status RocksDatabase::EnsureWritable() {
  if (writable()) return OkStatus();
  if (UsedByThisThread(this)) {
    return Unavailable(
        fmt::format("the store {} is to be opened again after an error of the disk, and is being "
                    "read; try again",
                    path_));
  }
  const std::lock_guard in(entrance_);
  const std::lock_guard lock(users_);
  if (writable()) return OkStatus();  // another thread has opened it
  Close();
  const Status opened = OpenWith(StoreOptions(path_), /*read_only=*/false);
  fallen_back_ = !opened.ok();
  if (opened.ok()) return OkStatus();
  closed_ = OpenWith(ReadOnlyOptions(path_), /*read_only=*/true);
  return opened;
}

void RocksDatabase::Close() {
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  families_.clear();
  db_.reset();
}

// Only where a table file is damaged is RocksDB told to be lenient: one that is missing or cut
// short must not keep the store closed.
Status RocksDatabase::OpenWith(rocksdb::DBOptions options, bool read_only) {
  direct_reads_ = options.use_direct_reads;
  options.listeners.push_back(std::make_shared<ErrorListener>(stopped_));
  RETURN_IF_ERROR(StartThreads(options).WithContext("opening the store " + path_));
  RETURN_IF_ERROR(CheckLogs(path_));
  stopped_->store(false);
  rocksdb::Status opened = OpenOnce(options, read_only);
  if (opened.IsCorruption() || opened.IsPathNotFound()) {  // what is left: a table file
    options.paranoid_checks = false;
    opened = OpenOnce(options, read_only);
  }
  return opened.ok() ? OkStatus() : FromOpen(opened, path_);
}

rocksdb::Status RocksDatabase::OpenOnce(const rocksdb::DBOptions& options, bool read_only) {
  families_.clear();
  rocksdb::DB* db = nullptr;
  rocksdb::Status opened;
  try {
    opened = read_only ? rocksdb::DB::OpenForReadOnly(options, path_, Families(), &families_, &db)
                       : rocksdb::DB::Open(options, path_, Families(), &families_, &db);
  } catch (const std::system_error& error) {
    return rocksdb::Status::Busy("cannot start a thread", error.code().message());
  }
  db_.reset(db);
  return opened;
}

}  // namespace engram::memnode::rocks
