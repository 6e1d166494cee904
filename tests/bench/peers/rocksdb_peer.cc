#include "tests/bench/peers/rocksdb_peer.h"

#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/version.h>
#include <rocksdb/write_batch.h>

#include <cstring>
#include <vector>

#include "common/table/procedural.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/peers/key.h"

namespace engram::bench {
namespace {

Status FromRocksdb(const rocksdb::Status& status, std::string_view what) {
  return status.ok() ? OkStatus() : InternalError(fmt::format("{}: {}", what, status.ToString()));
}

uint64_t TotalRows(const table::TableLayout& layout) {
  return layout.layers[0].total_rows + layout.layers[1].total_rows;
}

rocksdb::Options MakeOptions(size_t cache_bytes) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(cache_bytes, /*num_shard_bits=*/4);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  table.format_version = 5;
  rocksdb::Options options;
  options.create_if_missing = true;
  options.error_if_exists = true;
  options.compression = rocksdb::kNoCompression;
  options.optimize_filters_for_hits = true;
  options.write_buffer_size = size_t{64} << 20;
  options.max_open_files = -1;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

class Reader : public BatchReader {
 public:
  explicit Reader(rocksdb::DB& db) : db_(db) {}

  Status Begin(const Batch& batch, std::span<std::byte> out) override {
    const size_t count = batch.row_count();
    EncodeKeys(batch);
    values_.resize(count);
    statuses_.resize(count);
    db_.MultiGet({}, db_.DefaultColumnFamily(), count, keys_.data(), values_.data(),
                 statuses_.data());
    const size_t row_bytes = out.size() / count;
    for (size_t i = 0; i < count; ++i) {
      RETURN_IF_ERROR(FromRocksdb(statuses_[i], "RocksDB MultiGet"));
      if (values_[i].size() != row_bytes) return DataLoss("RocksDB: a value of another size");
      std::memcpy(out.data() + i * row_bytes, values_[i].data(), row_bytes);
      values_[i].Reset();
    }
    return OkStatus();
  }
  Status End() override { return OkStatus(); }

 private:
  void EncodeKeys(const Batch& batch) {
    key_bytes_.resize(batch.row_count() * kKeyBytes);
    keys_.clear();
    char* at = key_bytes_.data();
    for (size_t layer = 0; layer < kLayers; ++layer) {
      for (const uint64_t row : batch.rows[layer]) {
        kKeys.Write(layer, row, at);
        keys_.emplace_back(at, kKeyBytes);
        at += kKeyBytes;
      }
    }
  }

  rocksdb::DB& db_;
  std::vector<char> key_bytes_;
  std::vector<rocksdb::Slice> keys_;
  std::vector<rocksdb::PinnableSlice> values_;
  std::vector<rocksdb::Status> statuses_;
};

class Peer : public RocksdbPeer {
 public:
  explicit Peer(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}

  Status Fill(const table::TableLayout& layout, uint64_t seed) {
    constexpr int kRowsPerWrite = 1000;
    rocksdb::WriteOptions write;
    write.disableWAL = true;
    std::vector<char> value(layout.row_format.row_bytes());
    char key[kKeyBytes];
    rocksdb::WriteBatch batch;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint64_t row = 0; row < layout.layers[layer].total_rows; ++row) {
        table::FillProceduralRow(layout.row_format, seed, layer, row,
                                 std::as_writable_bytes(std::span(value)));
        kKeys.Write(layer, row, key);
        batch.Put({key, kKeyBytes}, {value.data(), value.size()});
        if (batch.Count() < kRowsPerWrite) continue;
        RETURN_IF_ERROR(FromRocksdb(db_->Write(write, &batch), "writing rows"));
        batch.Clear();
        if (Interrupted()) return Cancelled("interrupted");
      }
    }
    RETURN_IF_ERROR(FromRocksdb(db_->Write(write, &batch), "writing rows"));
    RETURN_IF_ERROR(FromRocksdb(db_->Flush({}), "flushing"));
    rocksdb::CompactRangeOptions compact;
    compact.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    RETURN_IF_ERROR(FromRocksdb(db_->CompactRange(compact, nullptr, nullptr), "compacting"));
    return ReadAll(TotalRows(layout));
  }

  uint64_t disk_bytes() const override {
    uint64_t bytes = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &bytes);
    return bytes;
  }
  std::unique_ptr<BatchReader> MakeReader() override { return std::make_unique<Reader>(*db_); }

 private:
  Status ReadAll(uint64_t rows) {
    const std::unique_ptr<rocksdb::Iterator> all(db_->NewIterator({}));
    uint64_t seen = 0;
    for (all->SeekToFirst(); all->Valid(); all->Next()) ++seen;
    RETURN_IF_ERROR(FromRocksdb(all->status(), "reading all rows"));
    if (seen == rows) return OkStatus();
    return DataLoss(fmt::format("RocksDB holds {} rows of {}", seen, rows));
  }

  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace

Result<std::unique_ptr<RocksdbPeer>> RocksdbPeer::Fill(const table::TableLayout& layout,
                                                       uint64_t seed, const std::string& folder) {
  rocksdb::DB* db = nullptr;
  const size_t data_bytes = TotalRows(layout) * layout.row_format.row_bytes();
  RETURN_IF_ERROR(FromRocksdb(rocksdb::DB::Open(MakeOptions(2 * data_bytes), folder, &db),
                              "opening RocksDB in " + folder));
  auto peer = std::make_unique<Peer>(std::unique_ptr<rocksdb::DB>(db));
  RETURN_IF_ERROR(peer->Fill(layout, seed));
  return std::unique_ptr<RocksdbPeer>(std::move(peer));
}

std::string RocksdbVersion() {
  return fmt::format("{}.{}.{}", ROCKSDB_MAJOR, ROCKSDB_MINOR, ROCKSDB_PATCH);
}

std::string RocksdbSettings() {
  return "embedded in the client process (no network, client core only), MultiGet of the whole "
         "batch, values copied out, 8-byte keys, block cache twice the data and warm, 4 KiB blocks "
         "with hash index, bloom 10 bits skipped on the last level, no compression, compacted";
}

}  // namespace engram::bench
