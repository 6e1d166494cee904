// Keys: 'R' + text -> record; 'P' + table set + layer + page -> page; integers big-endian, so that
// iteration is in order.
#include "memnode/rocks_store.h"

#include <fmt/format.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <filesystem>

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;

constexpr int kOpenFilesMax = 512;
constexpr size_t kBlockBytes = 4096;  // one page a block: a cold read fetches what it needs
constexpr size_t kReadAheadBytes = 4 << 20;
constexpr char kImportFolder[] = "import";

void AppendBigEndian(uint64_t value, int bytes, std::string* key) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    key->push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

std::string RecordKey(std::string_view key) { return "R" + std::string(key); }

std::string PageKey(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  std::string key = "P";
  AppendBigEndian(table_set, 8, &key);
  AppendBigEndian(layer_index, 4, &key);
  AppendBigEndian(page, 8, &key);
  return key;
}

Status FromRocks(const rocksdb::Status& status, std::string_view what, const std::string& path) {
  if (status.ok()) return OkStatus();
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

rocksdb::Options StoreOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kCRC32c;
  table.block_size = kBlockBytes;
  rocksdb::Options options;
  options.create_if_missing = true;
  options.max_open_files = kOpenFilesMax;
  options.compression = rocksdb::kNoCompression;  // rows are dense numbers: nothing to gain
  options.paranoid_checks = true;
  options.max_background_jobs = 2;
  options.keep_log_file_num = 2;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

class RocksPageWriter : public PageWriter {
 public:
  RocksPageWriter(std::string path, TableSetId table_set)
      : path_(std::move(path)),
        table_set_(table_set),
        options_(StoreOptions()),
        writer_(rocksdb::EnvOptions(), options_) {}

  // Ingestion moves the file away; otherwise it goes with its writer.
  ~RocksPageWriter() override {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }

  Status Open() { return FromRocks(writer_.Open(path_), "creating", path_); }
  Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) override {
    return FromRocks(writer_.Put(PageKey(table_set_, layer_index, page), AsSlice(bytes)), "writing",
                     path_);
  }
  Status Finish() override { return FromRocks(writer_.Finish(), "finishing", path_); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  const TableSetId table_set_;
  const rocksdb::Options options_;
  rocksdb::SstFileWriter writer_;
};

class RocksStore : public RowStore {
 public:
  explicit RocksStore(std::string path) : path_(std::move(path)) {}

  Status Open() {
    const std::string import_path = path_ + "/" + kImportFolder;
    std::error_code error;
    fs::create_directories(import_path, error);
    if (error) {
      return FailedPrecondition(
          fmt::format("store.path {} cannot be written: {}", path_, error.message()));
    }
    rocksdb::DB* db = nullptr;
    const rocksdb::Status opened = rocksdb::DB::Open(StoreOptions(), path_, &db);
    if (!opened.ok()) return FromRocks(opened, "opening the store in store.path", path_);
    db_.reset(db);
    // Only after the store's lock is ours: files an interrupted import left.
    fs::remove_all(import_path, error);
    fs::create_directories(import_path, error);
    return OkStatus();
  }

  Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) override {
    std::map<std::string, std::string> records;
    const std::string first = RecordKey(prefix);
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions()));
    for (it->Seek(first); it->Valid() && it->key().starts_with(first); it->Next()) {
      records[it->key().ToString().substr(1)] = it->value().ToString();
    }
    RETURN_IF_ERROR(FromRocks(it->status(), "reading the records of", path_));
    return records;
  }

  Status WriteRecords(std::span<const RecordChange> changes) override {
    rocksdb::WriteBatch batch;
    for (const RecordChange& change : changes) {
      if (change.value) {
        batch.Put(RecordKey(change.key), *change.value);
      } else {
        batch.Delete(RecordKey(change.key));
      }
    }
    rocksdb::WriteOptions synced;
    synced.sync = true;
    return FromRocks(db_->Write(synced, &batch), "writing records to", path_);
  }

  Result<std::unique_ptr<PageWriter>> NewFile(TableSetId table_set) override {
    auto file = std::make_unique<RocksPageWriter>(
        fmt::format("{}/{}/{:06}.sst", path_, kImportFolder, file_count_++), table_set);
    RETURN_IF_ERROR(file->Open());
    return std::unique_ptr<PageWriter>(std::move(file));
  }

  Status Ingest(std::vector<std::unique_ptr<PageWriter>> files) override {
    std::vector<std::string> paths;
    for (const auto& file : files) {
      paths.push_back(static_cast<const RocksPageWriter&>(*file).path());
    }
    rocksdb::IngestExternalFileOptions ingest;
    ingest.move_files = true;
    return FromRocks(db_->IngestExternalFile(paths, ingest), "ingesting into", path_);
  }

  Status DropPages(TableSetId table_set) override {
    const std::string first = PageKey(table_set, 0, 0);
    const std::string last = PageKey(table_set, UINT32_MAX, UINT64_MAX);
    const rocksdb::Slice begin(first), end(last);
    rocksdb::WriteOptions synced;
    synced.sync = true;
    rocksdb::ColumnFamilyHandle* family = db_->DefaultColumnFamily();
    RETURN_IF_ERROR(FromRocks(rocksdb::DeleteFilesInRange(db_.get(), family, &begin, &end),
                              "dropping a table set of", path_));
    return FromRocks(db_->DeleteRange(synced, family, begin, end), "dropping a table set of",
                     path_);
  }

  Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first, uint64_t count,
                   const Visitor& visit) override {
    rocksdb::ReadOptions options;
    options.readahead_size = kReadAheadBytes;
    options.fill_cache = false;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
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
    const rocksdb::Status got = db_->Get(options, PageKey(table_set, layer_index, page), bytes);
    if (got.ok()) return OkStatus();
    return DataLoss(fmt::format("page {} of Engram layer index {} is {} in the store {}: {}", page,
                                layer_index, got.IsNotFound() ? "missing" : "unreadable", path_,
                                got.ToString()));
  }

 private:
  const std::string path_;
  std::atomic<uint64_t> file_count_ = 0;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace

Result<std::unique_ptr<RowStore>> OpenRocksStore(const std::string& path) {
  auto store = std::make_unique<RocksStore>(path);
  RETURN_IF_ERROR(store->Open());
  return std::unique_ptr<RowStore>(std::move(store));
}

}  // namespace engram::memnode
