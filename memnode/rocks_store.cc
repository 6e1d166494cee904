// Two column families. "default" has records under their own text keys. "pages" has pages under
// table set + layer + page, big-endian, so that iteration is in order; each is one block of one or
// more whole disk sectors, so that a cold read is one aligned read.
//
// Pages are never compacted in the background: their files do not overlap, so that nothing is
// gained, and a damaged block would stop the whole store. Index blocks stay in memory, about 25
// bytes a page (0.6 % of the rows).
#include "memnode/rocks_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;

constexpr int kOpenFilesMax = 1 << 20;
constexpr size_t kBlockBytes = 4096;          // and no smaller: one page a block
constexpr size_t kBlockCacheBytes = 1 << 20;  // records; pages are not cached here
constexpr size_t kReadAheadBytes = 4 << 20;
constexpr uint64_t kWalBytesMax = 4 << 20;
constexpr char kImportFolder[] = "import";
constexpr char kPagesFamily[] = "pages";

void AppendBigEndian(uint64_t value, int bytes, std::string* key) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    key->push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

std::string PageKey(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  std::string key;
  AppendBigEndian(table_set, 8, &key);
  AppendBigEndian(layer_index, 4, &key);
  AppendBigEndian(page, 8, &key);
  return key;
}

Status FromRocks(const rocksdb::Status& status, std::string_view what, const std::string& path) {
  if (status.ok()) return OkStatus();
  if (status.IsNoSpace()) {
    return ResourceExhausted(
        fmt::format("{} {}: the disk is full; make room and try again", what, path));
  }
  const Code code = status.IsCorruption() ? Code::kDataLoss
                    : status.IsIOError()  ? Code::kFailedPrecondition
                                          : Code::kInternal;
  return Status(code, fmt::format("{} {}: {}", what, path, status.ToString()));
}

rocksdb::Slice AsSlice(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> AsBytes(const rocksdb::Slice& slice) {
  return std::as_bytes(std::span(slice.data(), slice.size()));
}

// Whether files below `folder` can be read past the page cache; tmpfs has none to pass.
bool HasDirectReads(const std::string& folder) {
  const std::string probe = folder + "/probe";
  const int fd = ::open(probe.c_str(), O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
  if (fd >= 0) ::close(fd);
  ::unlink(probe.c_str());
  return fd >= 0;
}

rocksdb::ColumnFamilyOptions PagesOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kCRC32c;
  table.block_size = kBlockBytes;
  table.block_align = true;
  table.no_block_cache = true;
  rocksdb::ColumnFamilyOptions options;
  options.disable_auto_compactions = true;
  options.compression = rocksdb::kNoCompression;  // rows are dense numbers: nothing to gain
  options.target_file_size_base = 1ull << 30;     // a compaction by hand keeps whole files
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::ColumnFamilyOptions RecordsOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kCRC32c;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  rocksdb::ColumnFamilyOptions options;
  options.write_buffer_size = kWalBytesMax;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::DBOptions StoreOptions() {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_open_files = kOpenFilesMax;
  // A file of pages that is missing or cut short is found when it is read, named and repaired: it
  // must not keep the store closed. Every page has a checksum of ours besides RocksDB's.
  options.paranoid_checks = false;
  options.max_background_jobs = 2;
  options.max_total_wal_size = kWalBytesMax;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  return options;
}

rocksdb::Options WriterOptions() { return rocksdb::Options(StoreOptions(), PagesOptions()); }

class RocksPageWriter : public PageWriter {
 public:
  RocksPageWriter(std::string path, TableSetId table_set)
      : path_(std::move(path)),
        table_set_(table_set),
        options_(WriterOptions()),
        writer_(rocksdb::EnvOptions(), options_) {}

  // Ingestion moves the file away; otherwise it goes with its writer.
  ~RocksPageWriter() override {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }

  Status Open() { return FromRocks(writer_.Open(path_), "creating", path_); }
  Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) override {
    std::string key = PageKey(table_set_, layer_index, page);
    RETURN_IF_ERROR(FromRocks(writer_.Put(key, AsSlice(bytes)), "writing", path_));
    if (first_.empty()) first_ = key;
    last_ = std::move(key);
    return OkStatus();
  }
  Status Finish() override { return FromRocks(writer_.Finish(), "finishing", path_); }
  const std::string& path() const { return path_; }
  const std::string& first() const { return first_; }
  const std::string& last() const { return last_; }

 private:
  const std::string path_;
  const TableSetId table_set_;
  const rocksdb::Options options_;
  rocksdb::SstFileWriter writer_;
  std::string first_, last_;  // keys
};

class RocksStore : public RowStore {
 public:
  explicit RocksStore(std::string path) : path_(std::move(path)) {}

  ~RocksStore() override {
    for (rocksdb::ColumnFamilyHandle* family : families_) {
      db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
    }
  }

  Status Open() {
    const std::string import_path = path_ + "/" + kImportFolder;
    std::error_code error;
    fs::create_directories(import_path, error);
    if (error) {
      return FailedPrecondition(
          fmt::format("store.path {} cannot be written: {}", path_, error.message()));
    }
    rocksdb::DBOptions options = StoreOptions();
    options.use_direct_reads = HasDirectReads(import_path);
    rocksdb::DB* db = nullptr;
    RETURN_IF_ERROR(FromRocks(rocksdb::DB::Open(options, path_, Families(), &families_, &db),
                              "opening the store in store.path", path_));
    db_.reset(db);
    // Only after the store's lock is ours: files an interrupted import left.
    fs::remove_all(import_path, error);
    fs::create_directories(import_path, error);
    return OkStatus();
  }

  Status OpenReadOnly() {
    rocksdb::DBOptions options = StoreOptions();
    options.create_if_missing = false;
    options.create_missing_column_families = false;
    rocksdb::DB* db = nullptr;
    RETURN_IF_ERROR(
        FromRocks(rocksdb::DB::OpenForReadOnly(options, path_, Families(), &families_, &db),
                  "opening for reading the store in", path_));
    db_.reset(db);
    return OkStatus();
  }

  Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) override {
    std::map<std::string, std::string> records;
    const std::unique_ptr<rocksdb::Iterator> it(
        db_->NewIterator(rocksdb::ReadOptions(), families_[0]));
    const rocksdb::Slice first(prefix.data(), prefix.size());
    for (it->Seek(first); it->Valid() && it->key().starts_with(first); it->Next()) {
      records[it->key().ToString()] = it->value().ToString();
    }
    RETURN_IF_ERROR(FromRocks(it->status(), "reading the records of", path_));
    return records;
  }

  Status WriteRecords(std::span<const RecordChange> changes) override {
    rocksdb::WriteBatch batch;
    for (const RecordChange& change : changes) {
      if (change.value) {
        batch.Put(families_[0], change.key, *change.value);
      } else {
        batch.Delete(families_[0], change.key);
      }
    }
    rocksdb::WriteOptions synced;
    synced.sync = true;
    rocksdb::Status written = db_->Write(synced, &batch);
    // After an error of the disk RocksDB takes no writes until it is told to go on.
    if (!written.ok() && db_->Resume().ok()) written = db_->Write(synced, &batch);
    return FromRocks(written, "writing records to", path_);
  }

  Result<std::unique_ptr<PageWriter>> NewFile(TableSetId table_set) override {
    auto file = std::make_unique<RocksPageWriter>(
        fmt::format("{}/{}/{:06}.sst", path_, kImportFolder, file_count_++), table_set);
    RETURN_IF_ERROR(file->Open());
    return std::unique_ptr<PageWriter>(std::move(file));
  }

  Status Ingest(std::vector<std::unique_ptr<PageWriter>> files) override {
    const std::lock_guard lock(ingest_mutex_);
    std::vector<std::string> paths;
    std::vector<Span> replaced;
    ASSIGN_OR_RETURN(const std::vector<Span> present, Present());
    for (const auto& file : files) {
      const auto& writer = static_cast<const RocksPageWriter&>(*file);
      paths.push_back(writer.path());
      const Span span = {writer.first(), writer.last()};
      const bool overlaps = std::any_of(present.begin(), present.end(), [&](const Span& other) {
        return other.first <= span.last && span.first <= other.last;
      });
      if (!overlaps) continue;
      if (Readable(span)) {
        replaced.push_back(span);
      } else {
        RETURN_IF_ERROR(DeleteFiles(span));
      }
    }
    rocksdb::IngestExternalFileOptions ingest;
    ingest.move_files = true;
    RETURN_IF_ERROR(
        FromRocks(db_->IngestExternalFile(families_[1], paths, ingest), "ingesting into", path_));
    // The new pages hide the old ones already; this gives their space back.
    for (const Span& span : replaced) RETURN_IF_ERROR(Compact(span));
    return OkStatus();
  }

  Status DropPages(TableSetId table_set) override {
    const std::lock_guard lock(ingest_mutex_);
    const Span all = {PageKey(table_set, 0, 0), PageKey(table_set, UINT32_MAX, UINT64_MAX)};
    RETURN_IF_ERROR(DeleteFiles(all));
    ASSIGN_OR_RETURN(const std::vector<Span> present, Present());
    const bool left = std::any_of(present.begin(), present.end(), [&](const Span& other) {
      return other.first <= all.last && all.first <= other.last;
    });
    if (!left) return OkStatus();
    rocksdb::WriteOptions synced;
    synced.sync = true;
    RETURN_IF_ERROR(FromRocks(db_->DeleteRange(synced, families_[1], all.first, all.last),
                              "dropping a table set of", path_));
    return Compact(all);
  }

  Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first, uint64_t count,
                   const Visitor& visit) override {
    rocksdb::ReadOptions options;
    // No further than asked: a small partition is read in one go, not with megabytes behind it.
    options.readahead_size = std::min<size_t>(kReadAheadBytes, count * kBlockBytes);
    options.fill_cache = false;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, families_[1]));
    it->Seek(PageKey(table_set, layer_index, first));
    for (uint64_t page = first; page < first + count; ++page, it->Next()) {
      if (!it->Valid() || it->key() != PageKey(table_set, layer_index, page)) {
        return DataLoss(fmt::format("page {} of Engram layer index {} is {} in the store {}{}",
                                    page, layer_index, it->status().ok() ? "missing" : "unreadable",
                                    path_,
                                    it->status().ok() ? "" : ": " + it->status().ToString()));
      }
      RETURN_IF_ERROR(visit(page, AsBytes(it->value())));
    }
    return OkStatus();
  }

  Status ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                  std::string* bytes) override {
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    const rocksdb::Status got =
        db_->Get(options, families_[1], PageKey(table_set, layer_index, page), bytes);
    if (got.ok()) return OkStatus();
    return DataLoss(fmt::format("page {} of Engram layer index {} is {} in the store {}: {}", page,
                                layer_index, got.IsNotFound() ? "missing" : "unreadable", path_,
                                got.ToString()));
  }

 private:
  // Keys, both included.
  struct Span {
    std::string first, last;
  };

  static std::vector<rocksdb::ColumnFamilyDescriptor> Families() {
    return {{rocksdb::kDefaultColumnFamilyName, RecordsOptions()}, {kPagesFamily, PagesOptions()}};
  }

  // What the files of pages cover.
  Result<std::vector<Span>> Present() const {
    rocksdb::ColumnFamilyMetaData meta;
    db_->GetColumnFamilyMetaData(families_[1], &meta);
    std::vector<Span> spans;
    for (const rocksdb::LevelMetaData& level : meta.levels) {
      for (const rocksdb::SstFileMetaData& file : level.files) {
        spans.push_back({file.smallestkey, file.largestkey});
      }
    }
    return spans;
  }

  bool Readable(const Span& span) const {
    rocksdb::ReadOptions options;
    options.readahead_size = kReadAheadBytes;
    options.fill_cache = false;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, families_[1]));
    for (it->Seek(span.first); it->Valid() && it->key().compare(span.last) <= 0; it->Next()) {
    }
    return it->status().ok();
  }

  // Whole files only, without reading them.
  Status DeleteFiles(const Span& span) {
    const rocksdb::Slice begin(span.first), end(span.last);
    return FromRocks(rocksdb::DeleteFilesInRange(db_.get(), families_[1], &begin, &end),
                     "deleting pages of", path_);
  }

  Status Compact(const Span& span) {
    const rocksdb::Slice begin(span.first), end(span.last);
    rocksdb::CompactRangeOptions options;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    return FromRocks(db_->CompactRange(options, families_[1], &begin, &end), "replacing pages of",
                     path_);
  }

  const std::string path_;
  std::atomic<uint64_t> file_count_ = 0;
  std::mutex ingest_mutex_;  // one change of the set of files at a time
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;  // records, pages
};

}  // namespace

Result<std::unique_ptr<RowStore>> OpenRocksStore(const std::string& path) {
  auto store = std::make_unique<RocksStore>(path);
  RETURN_IF_ERROR(store->Open());
  return std::unique_ptr<RowStore>(std::move(store));
}

Result<std::unique_ptr<RowStore>> OpenRocksStoreReadOnly(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path + "/CURRENT", error)) {
    return NotFound(fmt::format("there is no store in {}", path));
  }
  auto store = std::make_unique<RocksStore>(path);
  RETURN_IF_ERROR(store->OpenReadOnly());
  return std::unique_ptr<RowStore>(std::move(store));
}

}  // namespace engram::memnode
