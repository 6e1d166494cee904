// Small table sets in a MemoryStore for the tests of verification, repair and scrubbing: a full
// version "1" of procedural rows, and deltas of it made by hand.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "memnode/store/manifest.h"
#include "memnode/store/page.h"
#include "memnode/store/table_reader.h"
#include "tests/memnode/procedural_source.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {

inline constexpr char kModel[] = "procedural";

// Two layers of about 3,600 rows in pages of 25, partitions of 2 pages.
inline table::ProceduralSpec SmallSpec(uint64_t seed = 3) {
  return {.layout = "paper", .rows_scale = 1e-4, .seed = seed};
}

// Procedural rows, of which some were overwritten.
class ChangedSource : public ProceduralSource {
 public:
  ChangedSource() : ProceduralSource(SmallSpec()) {}
  void Change(uint32_t layer_index, uint64_t row) { changed_[{layer_index, row}] = true; }

  Status ReadRows(uint32_t layer_index, uint64_t first, uint64_t count,
                  std::byte* out) const override {
    RETURN_IF_ERROR(ProceduralSource::ReadRows(layer_index, first, count, out));
    const size_t row_bytes = row_format().row_bytes();
    for (uint64_t i = 0; i < count; ++i) {
      if (!changed_.contains({layer_index, first + i})) continue;
      out[i * row_bytes] ^= std::byte{0x5a};
    }
    return OkStatus();
  }

 private:
  std::map<std::pair<uint32_t, uint64_t>, bool> changed_;
};

class StoredTables {
 public:
  explicit StoredTables(RowStore& store, const table::ClusterMap& map = {.members = {"m0"}})
      : store_(store), map_(map) {
    CHECK(ImportProcedural(base_, "1", map, "m0", store).ok());
  }

  const ChangedSource& base() const { return base_; }
  static TableSetId Id(const std::string& version) { return TableSetIdOf(kModel, version); }

  // Writes `source` as version `version`, a delta on `base_version`.
  void PutDelta(const ChangedSource& source, const std::string& version,
                const std::string& base_version) {
    Manifest manifest = *Find(base_version);
    const auto base = *TableReader::Open(store_, manifest);
    manifest.identity.version = version;
    manifest.base_version = base_version;
    std::vector<RecordChange> records;
    auto writer = *store_.NewFile(Id(version));
    for (uint32_t layer = 0; layer < manifest.layers.size(); ++layer) {
      for (const uint32_t partition : manifest.layers[layer].held) {
        const std::string bits = PutChanged(source, *base, layer, partition, *writer);
        manifest.layers[layer].digests[partition] = Digest(source, *base, layer, partition);
        if (std::all_of(bits.begin(), bits.end(), [](char c) { return c == 0; })) continue;
        records.push_back({ChangedPagesKey(Id(version), layer, partition), bits});
      }
    }
    CHECK(writer->Finish().ok());
    std::vector<std::unique_ptr<PageWriter>> files;
    files.push_back(std::move(writer));
    CHECK(store_.Ingest(std::move(files)).ok());
    manifest.identity.content_digest = ContentDigest(manifest.layers);
    records.push_back(ManifestRecord(manifest));
    CHECK(store_.WriteRecords(records).ok());
  }

  std::optional<Manifest> Find(const std::string& version) {
    auto found = FindManifest(store_, kModel, version);
    CHECK(found.ok()) << found.status().message();
    return *std::move(found);
  }
  std::unique_ptr<TableReader> Open(const std::string& version) {
    auto reader = TableReader::Open(store_, *Find(version));
    CHECK(reader.ok()) << reader.status().message();
    return *std::move(reader);
  }

  // Replaces a page by sound bytes that are another's.
  void PutForeignPage(const std::string& version, uint32_t layer_index, uint64_t page) {
    const ProceduralSource other(SmallSpec(99));
    std::vector<std::byte> rows(25 * other.row_format().row_bytes());
    CHECK(other.ReadRows(layer_index, page * 25, 25, rows.data()).ok());
    std::string bytes;
    EncodePage(rows, other.row_format().row_bytes(), &bytes);
    auto writer = *store_.NewFile(Id(version));
    CHECK(writer->Put(layer_index, page, std::as_bytes(std::span(bytes))).ok());
    CHECK(writer->Finish().ok());
    std::vector<std::unique_ptr<PageWriter>> files;
    files.push_back(std::move(writer));
    CHECK(store_.Ingest(std::move(files)).ok());
  }

 private:
  static std::vector<std::byte> Rows(const ChangedSource& source, uint32_t layer, uint64_t first,
                                     uint64_t count) {
    std::vector<std::byte> rows(count * source.row_format().row_bytes());
    CHECK(source.ReadRows(layer, first, count, rows.data()).ok());
    return rows;
  }
  static Sha256Digest Digest(const ChangedSource& source, const TableReader& base, uint32_t layer,
                             uint32_t partition) {
    const table::LayerPartitions& cut = base.cut(layer);
    Sha256 hash;
    hash.Update(Rows(source, layer, cut.FirstRow(partition), cut.RowCount(partition)));
    return hash.Finish();
  }
  static std::string PutChanged(const ChangedSource& source, const TableReader& base,
                                uint32_t layer, uint32_t partition, PageWriter& writer) {
    std::string bits((base.PageCount(layer, partition) + 7) / 8, '\0');
    std::string scratch, bytes;
    for (uint64_t i = 0; i < base.PageCount(layer, partition); ++i) {
      const uint64_t page = base.FirstPage(layer, partition) + i;
      const auto rows =
          Rows(source, layer, base.FirstRowOfPage(layer, page), base.RowCountOfPage(layer, page));
      const auto old = *base.ReadPage(layer, page, &scratch);
      if (std::equal(rows.begin(), rows.end(), old.begin(), old.end())) continue;
      bits[i / 8] = static_cast<char>(bits[i / 8] | (1 << (i % 8)));
      EncodePage(rows, base.row_bytes(), &bytes);
      CHECK(writer.Put(layer, page, std::as_bytes(std::span(bytes))).ok());
    }
    return bits;
  }

  RowStore& store_;
  const table::ClusterMap map_;
  ChangedSource base_;
};

}  // namespace engram::memnode
