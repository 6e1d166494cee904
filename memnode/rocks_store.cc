// Keys: 'M' + table set -> manifest; 'P' + table set + layer + page -> page; integers big-endian,
// so that iteration is in order.
#include "memnode/rocks_store.h"

#include <fmt/format.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <filesystem>

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;

// One sorted file of an import; bounds what a crash leaves behind and what one ingestion moves.
constexpr uint64_t kSstBytesMax = 256ull << 20;
constexpr int kOpenFilesMax = 512;
constexpr size_t kBlockBytes = 4096;  // one page a block: a cold read fetches what it needs
constexpr size_t kReadAheadBytes = 4 << 20;
constexpr char kImportFolder[] = "import";

void AppendBigEndian(uint64_t value, int bytes, std::string* key) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    key->push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

uint64_t ReadBigEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char c : bytes) value = (value << 8) | static_cast<uint8_t>(c);
  return value;
}

std::string ManifestKey(TableSetId table_set) {
  std::string key = "M";
  AppendBigEndian(table_set, 8, &key);
  return key;
}

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
  RocksPageWriter(rocksdb::DB* db, std::string folder, TableSetId table_set)
      : db_(db),
        folder_(std::move(folder)),
        table_set_(table_set),
        options_(StoreOptions()),
        writer_(rocksdb::EnvOptions(), options_) {}

  ~RocksPageWriter() override {
    if (file_open_) fs::remove(file_path_, ignored_);
  }

  Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) override {
    if (!file_open_) RETURN_IF_ERROR(OpenFile());
    RETURN_IF_ERROR(FromRocks(writer_.Put(PageKey(table_set_, layer_index, page), AsSlice(bytes)),
                              "writing", file_path_));
    return writer_.FileSize() >= kSstBytesMax ? IngestFile() : OkStatus();
  }

  Status Finish() override { return file_open_ ? IngestFile() : OkStatus(); }

 private:
  Status OpenFile() {
    file_path_ = fmt::format("{}/{:016x}-{:06}.sst", folder_, table_set_, file_count_++);
    RETURN_IF_ERROR(FromRocks(writer_.Open(file_path_), "creating", file_path_));
    file_open_ = true;
    return OkStatus();
  }

  Status IngestFile() {
    RETURN_IF_ERROR(FromRocks(writer_.Finish(), "finishing", file_path_));
    rocksdb::IngestExternalFileOptions ingest;
    ingest.move_files = true;
    RETURN_IF_ERROR(
        FromRocks(db_->IngestExternalFile({file_path_}, ingest), "ingesting", file_path_));
    file_open_ = false;
    return OkStatus();
  }

  rocksdb::DB* const db_;
  const std::string folder_;
  const TableSetId table_set_;
  const rocksdb::Options options_;
  rocksdb::SstFileWriter writer_;
  std::string file_path_;
  std::error_code ignored_;
  bool file_open_ = false;
  int file_count_ = 0;
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

  Result<std::map<TableSetId, std::string>> Manifests() override {
    std::map<TableSetId, std::string> manifests;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions()));
    for (it->Seek("M"); it->Valid() && it->key().starts_with("M"); it->Next()) {
      const std::string_view key(it->key().data(), it->key().size());
      manifests[ReadBigEndian(key.substr(1))] = it->value().ToString();
    }
    RETURN_IF_ERROR(FromRocks(it->status(), "reading the manifests of", path_));
    return manifests;
  }

  Status PutManifest(TableSetId table_set, const std::string& manifest) override {
    rocksdb::WriteOptions synced;
    synced.sync = true;
    return FromRocks(db_->Put(synced, ManifestKey(table_set), manifest), "writing a manifest to",
                     path_);
  }

  Status Drop(TableSetId table_set) override {
    rocksdb::WriteOptions synced;
    synced.sync = true;
    RETURN_IF_ERROR(
        FromRocks(db_->Delete(synced, ManifestKey(table_set)), "dropping a table set of", path_));
    const std::string first = PageKey(table_set, 0, 0);
    const std::string last = PageKey(table_set, UINT32_MAX, UINT64_MAX);
    const rocksdb::Slice begin(first), end(last);
    rocksdb::ColumnFamilyHandle* family = db_->DefaultColumnFamily();
    RETURN_IF_ERROR(FromRocks(rocksdb::DeleteFilesInRange(db_.get(), family, &begin, &end),
                              "dropping a table set of", path_));
    return FromRocks(db_->DeleteRange(synced, family, begin, end), "dropping a table set of",
                     path_);
  }

  Result<std::unique_ptr<PageWriter>> BeginImport(TableSetId table_set) override {
    return std::unique_ptr<PageWriter>(
        std::make_unique<RocksPageWriter>(db_.get(), path_ + "/" + kImportFolder, table_set));
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

 private:
  const std::string path_;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace

Result<std::unique_ptr<RowStore>> OpenRocksStore(const std::string& path) {
  auto store = std::make_unique<RocksStore>(path);
  RETURN_IF_ERROR(store->Open());
  return std::unique_ptr<RowStore>(std::move(store));
}

}  // namespace engram::memnode
