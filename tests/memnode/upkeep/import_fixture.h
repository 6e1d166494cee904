// What the tests of imports share: folders of every layout, a source that is watched while it is
// read, a store that fails on demand, and all that a store holds of a version.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "common/checkpoint/checkpoint_tables.h"
#include "common/checkpoint/table_source.h"
#include "memnode/ctl/make_model/layout_maker.h"
#include "memnode/store/table_reader.h"
#include "memnode/tables/open_tables.h"
#include "memnode/upkeep/importer.h"
#include "memnode/upkeep/verify.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {

struct OpenedFolder {
  client::ModelTables model;
  std::unique_ptr<client::TableSource> source;
};

inline OpenedFolder OpenFolder(const std::string& folder, const std::string& version = "1") {
  auto model = client::LoadModelTables(folder, "model", version);
  CHECK(model.ok()) << model.status().message();
  auto source = client::OpenTableSource(folder, *model);
  CHECK(source.ok()) << source.status().message();
  return {*std::move(model), *std::move(source)};
}

// 24 layers of about 1,250 rows, so that there are many files of pages in few bytes.
inline TinyCheckpoint ManyLayers(uint64_t seed = 7) {
  std::string ids = "[0";
  for (int i = 1; i < 24; ++i) ids += fmt::format(", {}", i);
  return {.seed = seed, .layer_ids = ids + "]"};
}

// Counts reads, and calls `before_read` (number of the read, from 0) on the reading thread.
class WatchedSource : public client::TableSource {
 public:
  explicit WatchedSource(const client::TableSource& source) : source_(source) {}

  std::function<void(uint64_t)> before_read;
  uint64_t reads() const { return reads_; }
  size_t reader_count() const { return readers_.size(); }

  const table::RowFormat& row_format() const override { return source_.row_format(); }
  uint32_t layer_count() const override { return source_.layer_count(); }
  uint64_t rows(uint32_t layer_index) const override { return source_.rows(layer_index); }
  Status ReadRows(uint32_t layer_index, uint64_t first, uint64_t count,
                  std::byte* out) const override {
    {
      const std::lock_guard lock(mutex_);
      readers_.insert(std::this_thread::get_id());
    }
    const uint64_t number = reads_++;
    if (before_read) before_read(number);
    return source_.ReadRows(layer_index, first, count, out);
  }
  std::string Fingerprint() const override { return source_.Fingerprint(); }
  Status CheckUnchanged() const override { return source_.CheckUnchanged(); }

 private:
  const client::TableSource& source_;
  mutable std::atomic<uint64_t> reads_ = 0;
  mutable std::mutex mutex_;
  mutable std::set<std::thread::id> readers_;
};

// Fails one operation, counted over everything but single Puts: before it has any effect, or, as
// when the answer is lost, after it took effect.
class FaultyStore : public RowStore {
 public:
  explicit FaultyStore(RowStore& store) : store_(store) {}

  void FailOperation(uint64_t number, bool after) { fail_at_ = number, fail_after_ = after; }
  uint64_t operations() const { return operations_; }

  Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) override {
    return store_.ReadRecords(prefix);
  }
  Status WriteRecords(std::span<const RecordChange> changes) override {
    return Do([&] { return store_.WriteRecords(changes); });
  }
  Result<std::unique_ptr<PageWriter>> NewFile(TableSetId table_set) override {
    RETURN_IF_ERROR(Do([] { return OkStatus(); }));
    ASSIGN_OR_RETURN(auto file, store_.NewFile(table_set));
    return std::unique_ptr<PageWriter>(std::make_unique<File>(*this, std::move(file)));
  }
  Status Ingest(std::vector<std::unique_ptr<PageWriter>> files) override {
    std::vector<std::unique_ptr<PageWriter>> inner;
    for (auto& file : files) inner.push_back(std::move(static_cast<File&>(*file).file));
    return Do([&] { return store_.Ingest(std::move(inner)); });
  }
  Status DropPages(TableSetId table_set) override {
    return Do([&] { return store_.DropPages(table_set); });
  }
  Result<std::map<TableSetId, uint64_t>> AllPageBytes() override { return store_.AllPageBytes(); }
  Status ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first, uint64_t count,
                   const Visitor& visit) override {
    return store_.ReadPages(table_set, layer_index, first, count, visit);
  }
  Status ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                  std::string* bytes) override {
    return store_.ReadPage(table_set, layer_index, page, bytes);
  }

 private:
  struct File : PageWriter {
    File(FaultyStore& owner, std::unique_ptr<PageWriter> inner)
        : store(owner), file(std::move(inner)) {}
    Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) override {
      return file->Put(layer_index, page, bytes);
    }
    Status Finish() override {
      return store.Do([&] { return file->Finish(); });
    }
    FaultyStore& store;
    std::unique_ptr<PageWriter> file;
  };

  template <typename Operation>
  Status Do(const Operation& operation) {
    const bool fails = operations_++ == fail_at_;
    const Status failed(Code::kResourceExhausted, "the disk is full, says the test");
    if (fails && !fail_after_) return failed;
    const Status done = operation();
    return fails ? failed : done;
  }

  RowStore& store_;
  std::atomic<uint64_t> operations_ = 0;
  uint64_t fail_at_ = UINT64_MAX;
  bool fail_after_ = false;
};

// Everything a store holds of a version: records by key, pages by layer and number.
struct StoreContents {
  std::map<std::string, std::string> records;
  std::map<std::pair<uint32_t, uint64_t>, std::string> pages;
  bool operator==(const StoreContents&) const = default;
};

inline StoreContents ContentsOf(RowStore& store, const Manifest& manifest) {
  StoreContents contents;
  contents.records = *store.ReadRecords("");
  const auto reader = TableReader::Open(store, manifest);
  CHECK(reader.ok()) << reader.status().message();
  for (uint32_t i = 0; i < manifest.layers.size(); ++i) {
    for (const uint32_t partition : manifest.layers[i].held) {
      const uint64_t first = (*reader)->FirstPage(i, partition);
      for (uint64_t page = first; page < first + (*reader)->PageCount(i, partition); ++page) {
        std::string& bytes = contents.pages[{i, page}];
        const Status read = store.ReadPage((*reader)->HolderOf(i, page), i, page, &bytes);
        CHECK(read.ok()) << read.message();
      }
    }
  }
  return contents;
}

// Imports the share of `member` under the model's identity.
inline Result<Manifest> ImportFolder(const client::TableSource& source,
                                     const client::ModelTables& model, const table::ClusterMap& map,
                                     const std::string& member, RowStore& store,
                                     const ImportOptions& options = {}) {
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(model.identity, map, member));
  return ImportTables(source, model.identity, map, plan, store, options);
}

// Every held row of the version equals the source's, page by page.
inline void ExpectRowsOf(const client::TableSource& source, RowStore& store,
                         const Manifest& manifest) {
  auto opened = TableReader::Open(store, manifest);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const TableReader& reader = **opened;
  std::string scratch;
  std::vector<std::byte> expected;
  for (uint32_t i = 0; i < manifest.layers.size(); ++i) {
    for (const uint32_t partition : manifest.layers[i].held) {
      const uint64_t first = reader.FirstPage(i, partition);
      for (uint64_t page = first; page < first + reader.PageCount(i, partition); ++page) {
        const auto rows = reader.ReadPage(i, page, &scratch);
        ASSERT_TRUE(rows.ok()) << rows.status().message();
        expected.resize(rows->size());
        ASSERT_TRUE(source
                        .ReadRows(i, reader.FirstRowOfPage(i, page), reader.RowCountOfPage(i, page),
                                  expected.data())
                        .ok());
        ASSERT_TRUE(std::equal(rows->begin(), rows->end(), expected.begin(), expected.end()))
            << "layer index " << i << " page " << page;
      }
    }
  }
}

// Opens what the store has for `member` as a node does, and compares every row that it owns with
// the shards. Returns the number of rows.
inline uint64_t ExpectServed(const std::string& folder, RowStore& store, const Manifest& manifest,
                             const table::ClusterMap& map, const std::string& member) {
  const auto reader = TableReader::Open(store, manifest);
  CHECK(reader.ok()) << reader.status().message();
  const auto verified = VerifyTables(**reader);
  CHECK(verified.ok()) << verified.status().message();
  EXPECT_TRUE(verified->sound());
  OpenTablesOptions options;
  options.map = map;
  options.member = member;
  options.arena.pages = PageBacking::kSmall;
  obs::Metrics metrics;
  const auto served = OpenTables(store, manifest, options, metrics);
  CHECK(served.ok()) << served.status().message();
  const auto checkpoint = io::Checkpoint::Open(folder);
  const auto model = client::LoadModelTables(folder, "model", "1");
  const auto tables = client::CheckpointTables::Open(&*checkpoint, model->config);
  CHECK(tables.ok()) << tables.status().message();
  const uint32_t row_bytes = (*served)->row_bytes();
  std::vector<std::byte> row(row_bytes), expected(row_bytes);
  uint64_t rows = 0;
  for (uint32_t i = 0; i < (*served)->layer_count(); ++i) {
    const LayerPlan& layer = (*served)->plan().layers[i];
    for (const uint32_t partition : layer.owned) {
      const uint64_t first = layer.cut.FirstRow(partition);
      for (uint64_t r = first; r < first + layer.cut.RowCount(partition); ++r, ++rows) {
        const Status read = (*served)->ReadRow(i, r, row);
        tables->CopyRows(i, r, 1, expected.data());
        EXPECT_TRUE(read.ok() && row == expected) << "layer index " << i << " row " << r;
        if (!read.ok() || row != expected) return rows;
      }
    }
  }
  return rows;
}

}  // namespace engram::memnode
