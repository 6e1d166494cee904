// Two column families: "default" has records under their own text keys, "pages" has pages under
// table set + layer + page.
//
// Files of pages lie in the last level and do not overlap; nothing is compacted in the background.
// A file that replaces others is ingested above them, where it hides them, and then they are
// dropped by name, without being read: a damaged file can be replaced, and at no moment is a page
// that could be read gone. What a crash leaves half done is completed at open.
#include "memnode/store/rocks_store.h"

#include <fmt/format.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>

#include "common/base/check.h"
#include "memnode/store/disk_reserve.h"
#include "memnode/store/rocks_database.h"
#include "memnode/store/rocks_files.h"
#include "memnode/store/rocks_options.h"

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;
using rocks::FromRocks;
using rocks::PageKey;
using rocks::RocksPageWriter;
using rocks::Span;

constexpr size_t kReadAheadBytes = 1 << 20;  // 4 MiB: a third slower, its buffers are mapped anew
// Left free by pages for records, and by records for what makes room: dropping. Also, RocksDB ends
// the process when there is no room to list an ingested file.
constexpr uint64_t kRoomForRecords = 8 << 20;
constexpr uint64_t kRoomForDropping = 4 << 20;
constexpr char kImportFolder[] = "import";
constexpr char kReserveFile[] = "reserve";

std::span<const std::byte> AsBytes(const rocksdb::Slice& slice) {
  return std::as_bytes(std::span(slice.data(), slice.size()));
}

class RocksStore : public RowStore {
 public:
  RocksStore(std::string path, bool read_only, uint64_t reserve_bytes)
      : path_(std::move(path)),
        read_only_(read_only),
        reserve_(path_ + "/" + kReserveFile, reserve_bytes),
        db_(path_, read_only) {}

  Status Open() {
    if (read_only_) return db_.Open();
    const std::string import_path = path_ + "/" + kImportFolder;
    std::error_code error;
    fs::create_directories(import_path, error);
    if (error) {
      return FailedPrecondition(
          fmt::format("store.path {} cannot be written: {}", path_, error.message()));
    }
    Status opened = db_.Open();
    // A store that cannot be opened on a full disk could not be made smaller either.
    if (opened.code() == Code::kResourceExhausted && reserve_.Release()) {
      opened = db_.Open();
    }
    RETURN_IF_ERROR(opened);
    // Only after the store's lock is ours: files an interrupted import left.
    fs::remove_all(import_path, error);
    fs::create_directories(import_path, error);
    ASSIGN_OR_RETURN(const auto use, db_.Hold());
    const std::lock_guard lock(files_mutex_);
    Settle();
    reserve_.Take();
    return OkStatus();
  }

  Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) override {
    std::map<std::string, std::string> records;
    ASSIGN_OR_RETURN(const auto use, db_.Hold());
    const std::unique_ptr<rocksdb::Iterator> it(
        db_->NewIterator(rocksdb::ReadOptions(), db_.records()));
    const rocksdb::Slice first(prefix.data(), prefix.size());
    for (it->Seek(first); it->Valid() && it->key().starts_with(first); it->Next()) {
      records[it->key().ToString()] = it->value().ToString();
    }
    RETURN_IF_ERROR(FromRocks(it->status(), "reading the records of", path_));
    return records;
  }

  Status WriteRecords(std::span<const RecordChange> changes) override {
    RETURN_IF_ERROR(CheckRoomFor(changes));
    return Write(changes, /*keep=*/true);
  }

  Status WriteProgress(std::span<const RecordChange> changes) override {
    RETURN_IF_ERROR(CheckRoomFor(changes));
    RETURN_IF_ERROR(Write(changes, /*keep=*/false));
    reserve_.Take();  // used for a drop, and the disk has room again
    return OkStatus();
  }

  Status WriteDrop(std::span<const RecordChange> changes) override {
    if (!read_only_ && !CheckRoom(kRoomForRecords, "").ok()) reserve_.Release();
    return Write(changes, /*keep=*/true);
  }

  Result<std::unique_ptr<PageWriter>> NewFile(TableSetId table_set) override {
    if (read_only_) return Refused();
    auto file = std::make_unique<RocksPageWriter>(
        fmt::format("{}/{}/{:06}.sst", path_, kImportFolder, file_count_++), table_set,
        db_.direct_reads());
    RETURN_IF_ERROR(file->Open());
    return std::unique_ptr<PageWriter>(std::move(file));
  }

  Status Ingest(std::vector<std::unique_ptr<PageWriter>> files) override {
    if (read_only_) return Refused();
    if (files.empty()) return OkStatus();
    std::vector<std::string> paths;
    std::vector<Span> spans;
    for (const auto& file : files) {
      const auto* writer = dynamic_cast<const RocksPageWriter*>(file.get());
      CHECK(writer != nullptr && writer->finished());
      paths.push_back(writer->path());
      spans.push_back(writer->span());
    }
    RETURN_IF_ERROR(CheckRoom(kRoomForRecords, "ingesting into"));
    return Changed([&] { return Replace(paths, spans); });
  }

  Status DropPages(TableSetId table_set) override {
    if (read_only_) return Refused();
    RETURN_IF_ERROR(Changed([&] {
      return DeleteFiles({PageKey(table_set, 0, 0).ToString(),
                          PageKey(table_set, UINT32_MAX, UINT64_MAX).ToString()});
    }));
    reserve_.Take();
    return OkStatus();
  }

  Status CheckWritable() override {
    if (read_only_) return Refused();
    RETURN_IF_ERROR(CheckRoom(kRoomForRecords, "writing to"));
    if (db_.writable()) return OkStatus();
    return FailedPrecondition(fmt::format(
        "an error of the disk has stopped the store {}: it can be read, and the next change opens "
        "it again",
        path_));
  }

  // Every file is of one table set.
  Result<std::map<TableSetId, uint64_t>> AllPageBytes() override {
    std::map<TableSetId, uint64_t> bytes;
    ASSIGN_OR_RETURN(const auto use, db_.Hold());
    for (const File& file : Files()) bytes[rocks::TableSetOf(file.span.first)] += file.bytes;
    return bytes;
  }

  Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first, uint64_t count,
                   const Visitor& visit) override {
    if (count == 0) return OkStatus();
    rocksdb::ReadOptions options;
    // No further than asked: a small partition is read in one go, not with megabytes behind it.
    options.readahead_size = std::min<size_t>(kReadAheadBytes, count * rocks::kBlockBytes);
    options.fill_cache = false;
    ASSIGN_OR_RETURN(const auto use, db_.Hold());
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, db_.pages()));
    it->Seek(PageKey(table_set, layer_index, first).slice());
    for (uint64_t page = first; page < first + count; ++page, it->Next()) {
      if (!it->Valid() || it->key() != PageKey(table_set, layer_index, page).slice()) {
        return rocks::BadPage(it->status(), layer_index, page, path_);
      }
      RETURN_IF_ERROR(visit(page, AsBytes(it->value())));
    }
    return OkStatus();
  }

  Status ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                  std::string* bytes) override {
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    ASSIGN_OR_RETURN(const auto use, db_.Hold());
    const rocksdb::Status got =
        db_->Get(options, db_.pages(), PageKey(table_set, layer_index, page).slice(), bytes);
    return got.ok() ? OkStatus() : rocks::BadPage(got, layer_index, page, path_);
  }

 private:
  struct File {
    std::string name;
    int level;
    Span span;
    uint64_t bytes;
  };

  Status Refused() const {
    return FailedPrecondition(fmt::format("the store {} is opened for reading only", path_));
  }

  Status CheckRoomFor(std::span<const RecordChange> changes) const {
    if (std::none_of(changes.begin(), changes.end(), [](const auto& c) { return c.value; })) {
      return OkStatus();
    }
    return CheckRoom(kRoomForDropping, "writing records to");
  }

  // With `keep` the records are put into a file of their own as well: the log may be lost.
  Status Write(std::span<const RecordChange> changes, bool keep) {
    if (read_only_) return Refused();
    ASSIGN_OR_RETURN(const Turn turn, Begin(records_mutex_));
    rocksdb::WriteBatch batch;
    for (const RecordChange& change : changes) {
      if (change.value) {
        batch.Put(db_.records(), change.key, *change.value);
      } else {
        batch.Delete(db_.records(), change.key);
      }
    }
    rocksdb::WriteOptions synced;
    synced.sync = true;
    const rocksdb::Status written = db_->Write(synced, &batch);
    // Records behind a torn one would be lost at the next start: the log must be left first. So it
    // is after a flush that failed, though these records are written.
    if (!written.ok() || (keep && !db_->Flush(rocksdb::FlushOptions(), db_.records()).ok())) {
      db_.Stop();
    }
    return FromRocks(written, "writing records to", path_);
  }

  Status CheckRoom(uint64_t bytes, std::string_view what) const {
    struct statvfs room = {};
    if (::statvfs(path_.c_str(), &room) != 0 || room.f_bavail * room.f_frsize >= bytes) {
      return OkStatus();
    }
    return FromRocks(rocksdb::Status::NoSpace(), what, path_);
  }

  // One change at a time of what a mutex guards, of a database that takes changes.
  struct Turn {
    rocks::RocksDatabase::Use use;
    std::unique_lock<std::mutex> lock;
  };
  // The use comes before the lock, and the database is opened again without either: a thread that
  // uses it, as the visitor of a read, may wait for the lock.
  Result<Turn> Begin(std::mutex& mutex) {
    while (true) {
      RETURN_IF_ERROR(db_.EnsureWritable());
      ASSIGN_OR_RETURN(auto use, db_.Hold());
      std::unique_lock lock(mutex);
      if (db_.writable()) return Turn{std::move(use), std::move(lock)};
    }
  }

  // Calls `change`, a change of the set of files: once more where an error of the disk, of an
  // earlier change or of this one, has stopped the database.
  template <typename Change>
  Status Changed(Change change) {
    Status changed;
    for (int attempt = 0; attempt < 2; ++attempt) {
      ASSIGN_OR_RETURN(const Turn turn, Begin(files_mutex_));
      changed = change();
      if (changed.ok() || !db_.stopped()) break;
    }
    return changed;
  }

  std::vector<File> Files() const {
    rocksdb::ColumnFamilyMetaData meta;
    db_->GetColumnFamilyMetaData(db_.pages(), &meta);
    std::vector<File> files;
    for (const rocksdb::LevelMetaData& level : meta.levels) {
      for (const rocksdb::SstFileMetaData& file : level.files) {
        files.push_back({file.name, level.level, {file.smallestkey, file.largestkey}, file.size});
      }
    }
    return files;
  }

  bool Readable(const Span& span) const {
    rocksdb::ReadOptions options;
    options.readahead_size = kReadAheadBytes;
    options.fill_cache = false;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, db_.pages()));
    for (it->Seek(span.first); it->Valid() && it->key().compare(span.last) <= 0; it->Next()) {
    }
    return it->status().ok();
  }

  // Whole files only, without reading them.
  Status DeleteFiles(const Span& span) {
    const rocksdb::Slice begin(span.first), end(span.last);
    return FromRocks(rocksdb::DeleteFilesInRange(db_.get(), db_.pages(), &begin, &end),
                     "deleting pages of", path_);
  }

  // RocksDB reads the first page that a new file hides. Where that one is damaged, or the whole
  // file is gone, the old files have to go first. False when there are none.
  bool DeleteUnreadable(const std::vector<Span>& spans) {
    bool deleted = false;
    for (const Span& span : spans) {
      if (!Readable(span)) deleted = DeleteFiles(span).ok() || deleted;
    }
    return deleted;
  }

  // Whether any of these lies in a file that has others below it.
  bool Stacked(const std::vector<Span>& spans) const {
    const int last = db_->NumberLevels(db_.pages()) - 1;
    const std::vector<File> files = Files();
    return std::any_of(files.begin(), files.end(), [&](const File& file) {
      return file.level != last && std::any_of(spans.begin(), spans.end(), [&](const Span& span) {
               return span.Overlaps(file.span);
             });
    });
  }

  // Puts finished files in the place of what there is, and settles them.
  Status Replace(const std::vector<std::string>& paths, const std::vector<Span>& spans) {
    // A process killed before it could settle left files above others; where one of those is
    // damaged since, nothing above it could be settled either.
    if (Stacked(spans)) DeleteUnreadable(spans);
    Status ingested = IngestFiles(paths);
    if (!ingested.ok() && !db_.stopped() && DeleteUnreadable(spans)) ingested = IngestFiles(paths);
    if (ingested.ok()) Settle();
    return ingested;
  }

  // All or none.
  Status IngestFiles(const std::vector<std::string>& paths) {
    rocksdb::IngestExternalFileOptions options;
    options.move_files = true;
    options.write_global_seqno = false;  // kept in the manifest: a finished file stays as it is
    return FromRocks(db_->IngestExternalFile(db_.pages(), paths, options), "ingesting into", path_);
  }

  // Drops the files that a newer one above them covers, and moves that one down. Pages are right
  // before, between and after; what fails here is made up for at the next ingestion or start.
  void Settle() {
    const int last = db_->NumberLevels(db_.pages()) - 1;
    const std::vector<File> files = Files();
    for (const File& upper : files) {
      if (upper.level == last) continue;
      Span all = upper.span;
      for (const File& lower : files) {
        if (lower.level != last || !upper.span.Overlaps(lower.span)) continue;
        if (upper.span.Covers(lower.span) && db_->DeleteFile(lower.name).ok()) continue;
        all = {std::min(all.first, lower.span.first), std::max(all.last, lower.span.last)};
      }
      // RocksDB stops the store when it meets a damaged block while moving.
      if (!Readable(all)) continue;
      rocksdb::CompactionOptions options;
      options.compression = rocksdb::kNoCompression;
      db_->CompactFiles(options, db_.pages(), {upper.name}, last).PermitUncheckedError();
    }
  }

  const std::string path_;
  const bool read_only_;
  DiskReserve reserve_;
  std::atomic<uint64_t> file_count_ = 0;
  std::mutex files_mutex_;    // one change of the set of files at a time
  std::mutex records_mutex_;  // one write of records at a time
  rocks::RocksDatabase db_;   // public functions Hold() it
};

}  // namespace

Result<std::unique_ptr<RowStore>> OpenRocksStore(const std::string& path, uint64_t reserve_bytes) {
  auto store = std::make_unique<RocksStore>(path, /*read_only=*/false, reserve_bytes);
  RETURN_IF_ERROR(store->Open());
  return std::unique_ptr<RowStore>(std::move(store));
}

Result<std::unique_ptr<RowStore>> OpenRocksStoreReadOnly(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path + "/CURRENT", error)) {
    return NotFound(fmt::format("there is no store in {}", path));
  }
  auto store = std::make_unique<RocksStore>(path, /*read_only=*/true, /*reserve_bytes=*/0);
  RETURN_IF_ERROR(store->Open());
  return std::unique_ptr<RowStore>(std::move(store));
}

}  // namespace engram::memnode
