#include "memnode/store/rocks_files.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/base/check.h"
#include "memnode/store/rocks_options.h"

namespace engram::memnode::rocks {
namespace {

void PutBigEndian(uint64_t value, int bytes, char* out) {
  for (int i = 0; i < bytes; ++i) {
    out[i] = static_cast<char>((value >> ((bytes - 1 - i) * 8)) & 0xff);
  }
}

bool Says(const rocksdb::Status& status, std::string_view text) {
  return status.ToString().find(text) != std::string::npos;
}

}  // namespace

PageKey::PageKey(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  PutBigEndian(table_set, 8, text);
  PutBigEndian(layer_index, 4, text + 8);
  PutBigEndian(page, 8, text + 12);
}

TableSetId TableSetOf(std::string_view page_key) {
  TableSetId id = 0;
  for (const char byte : page_key.substr(0, sizeof(id))) id = id << 8 | static_cast<uint8_t>(byte);
  return id;
}

Status FromRocks(const rocksdb::Status& status, std::string_view what, const std::string& path) {
  if (status.ok()) return OkStatus();
  if (status.IsNoSpace()) {
    return ResourceExhausted(
        fmt::format("{} {}: the disk is full; make room and try again", what, path));
  }
  if (Says(status, "Read-only file system")) {
    return FailedPrecondition(fmt::format(
        "{} {}: its file system is mounted read-only; mount it for writing and start again", what,
        path));
  }
  if (status.IsNotSupported()) {
    return FailedPrecondition(fmt::format("{} {}: it is opened for reading only", what, path));
  }
  const Code code = status.IsCorruption() || status.IsPathNotFound() ? Code::kDataLoss
                    : status.IsIOError()                             ? Code::kFailedPrecondition
                                                                     : Code::kInternal;
  return Status(code, fmt::format("{} {}: {}", what, path, status.ToString()));
}

Status FromOpen(const rocksdb::Status& status, const std::string& path) {
  constexpr std::string_view kWhat = "opening the store in store.path";
  if (Says(status, "/LOCK: ") && !Says(status, "Read-only file system")) {
    return FailedPrecondition(
        fmt::format("{} {}: another process has it open, or it may not be written: {}", kWhat, path,
                    status.ToString()));
  }
  if (status.IsCorruption() || status.IsPathNotFound()) {
    return DataLoss(
        fmt::format("{} {}: what lists its files or records is damaged ({}); remove the folder and "
                    "import again",
                    kWhat, path, status.ToString()));
  }
  return FromRocks(status, kWhat, path);
}

Status BadPage(const rocksdb::Status& status, uint32_t layer_index, uint64_t page,
               const std::string& path) {
  const bool missing = status.ok() || status.IsNotFound();
  return DataLoss(fmt::format("page {} of Engram layer index {} is {} in the store {}{}{}", page,
                              layer_index, missing ? "missing" : "unreadable", path,
                              missing ? "" : ": ", missing ? "" : status.ToString()));
}

RocksPageWriter::RocksPageWriter(std::string path, TableSetId table_set, bool direct)
    : path_(std::move(path)),
      table_set_(table_set),
      writer_(WriterEnvironment(direct), WriterOptions(), /*column_family=*/nullptr,
              /*invalidate_page_cache=*/true) {}

RocksPageWriter::~RocksPageWriter() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

Status RocksPageWriter::Open() { return FromRocks(writer_.Open(path_), "creating", path_); }

Status RocksPageWriter::Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) {
  CHECK(!finished_);
  const PageKey key(table_set_, layer_index, page);
  CHECK(span_.last.empty() || key.slice().compare(span_.last) > 0) << "pages must ascend";
  const rocksdb::Slice value(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  RETURN_IF_ERROR(FromRocks(writer_.Put(key.slice(), value), "writing", path_));
  if (span_.first.empty()) span_.first = key.ToString();
  span_.last.assign(key.text, kPageKeyBytes);
  return OkStatus();
}

Status RocksPageWriter::Finish() {
  CHECK(!span_.first.empty());
  RETURN_IF_ERROR(FromRocks(writer_.Finish(), "finishing", path_));
  finished_ = true;
  return OkStatus();
}

}  // namespace engram::memnode::rocks
