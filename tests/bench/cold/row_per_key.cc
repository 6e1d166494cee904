#include "tests/bench/cold/row_per_key.h"

#include <fmt/format.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <vector>

namespace engram::bench {
namespace {

constexpr uint64_t kRowsPerFile = 1 << 20;
constexpr uint64_t kRowsPerRead = 1 << 12;

Status From(const rocksdb::Status& status, std::string_view what) {
  return status.ok() ? OkStatus() : InternalError(fmt::format("{}: {}", what, status.ToString()));
}

std::string KeyOf(uint32_t layer_index, uint64_t row) {
  const uint64_t key = (uint64_t{layer_index} << 56) | row;
  std::string text(8, '\0');
  for (int i = 0; i < 8; ++i) text[static_cast<size_t>(i)] = static_cast<char>(key >> (56 - 8 * i));
  return text;
}

rocksdb::Options MakeOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kCRC32c;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.no_block_cache = true;
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;
  options.use_direct_reads = true;
  options.max_open_files = -1;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

Status WriteFile(const client::TableSource& source, uint32_t layer_index, uint64_t first,
                 uint64_t count, const std::string& path) {
  const rocksdb::Options options = MakeOptions();
  rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), options);
  RETURN_IF_ERROR(From(writer.Open(path), path));
  const size_t row_bytes = source.row_format().row_bytes();
  std::vector<std::byte> rows(kRowsPerRead * row_bytes);
  for (uint64_t at = first; at < first + count; at += kRowsPerRead) {
    const uint64_t some = std::min(kRowsPerRead, first + count - at);
    RETURN_IF_ERROR(source.ReadRows(layer_index, at, some, rows.data()));
    for (uint64_t i = 0; i < some; ++i) {
      const rocksdb::Slice row(reinterpret_cast<const char*>(rows.data()) + i * row_bytes,
                               row_bytes);
      RETURN_IF_ERROR(From(writer.Put(KeyOf(layer_index, at + i), row), path));
    }
  }
  return From(writer.Finish(), path);
}

}  // namespace

Result<std::unique_ptr<RowPerKey>> RowPerKey::Load(const client::TableSource& source,
                                                   const std::string& folder) {
  rocksdb::DB* db = nullptr;
  RETURN_IF_ERROR(From(rocksdb::DB::Open(MakeOptions(), folder, &db), folder));
  std::unique_ptr<RowPerKey> store(new RowPerKey());
  store->db_.reset(db);
  for (uint32_t i = 0; i < source.layer_count(); ++i) {
    for (uint64_t first = 0; first < source.rows(i); first += kRowsPerFile) {
      const std::string path = fmt::format("{}/load-{}-{}.sst", folder, i, first);
      RETURN_IF_ERROR(
          WriteFile(source, i, first, std::min(kRowsPerFile, source.rows(i) - first), path));
      rocksdb::IngestExternalFileOptions ingest;
      ingest.move_files = true;
      RETURN_IF_ERROR(From(db->IngestExternalFile({path}, ingest), path));
    }
  }
  return store;
}

RowPerKey::~RowPerKey() = default;

Status RowPerKey::Read(uint32_t layer_index, uint64_t row, std::string* bytes) const {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  return From(db_->Get(options, KeyOf(layer_index, row), bytes), "reading a row");
}

}  // namespace engram::bench
