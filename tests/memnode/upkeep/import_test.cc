// Folders of every released layout, from disk through the store into a node's memory: every row of
// every member is the one in the shards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/table/procedural.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/upkeep/import_fixture.h"

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;

struct Layout {
  std::string name;
  std::string dtype;
  double rows_scale;
};

class ImportLayoutTest : public testing::TestWithParam<Layout> {
 protected:
  void SetUp() override {
    root_ = FreshFolder("import_" + GetParam().name + GetParam().dtype);
    ctl::MakeLayoutOptions options;
    options.layout = GetParam().name;
    options.dtype = GetParam().dtype;
    options.rows_scale = GetParam().rows_scale;
    options.seed = 11;
    options.out = folder();
    const Status made = ctl::MakeLayoutFolder(options);
    ASSERT_TRUE(made.ok()) << made.message();
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string folder() const { return root_ + "/model"; }

  const table::ClusterMap map_ = {.epoch = 1, .members = {"m0", "m1"}};
  std::string root_;
};

TEST_P(ImportLayoutTest, EveryRowOfEveryMemberIsTheOneInTheShards) {
  const OpenedFolder opened = OpenFolder(folder());
  uint64_t rows = 0, total = 0;
  std::string digest;
  for (const std::string& member : map_.members) {
    const std::string path = root_ + "/store_" + member;
    {
      auto store = OpenRocksStore(path);
      ASSERT_TRUE(store.ok()) << store.status().message();
      const auto imported = ImportFolder(*opened.source, opened.model, map_, member, **store);
      ASSERT_TRUE(imported.ok()) << imported.status().message();
      digest = imported->identity.content_digest;
    }
    auto store = OpenRocksStore(path);  // as after a restart
    ASSERT_TRUE(store.ok()) << store.status().message();
    const auto manifest = FindManifest(**store, "model", "1");
    ASSERT_TRUE(manifest.ok() && *manifest);
    rows += ExpectServed(folder(), **store, **manifest, map_, member);
    MemoryStore memory;
    const auto again = ImportFolder(*opened.source, opened.model, map_, member, memory);
    ASSERT_TRUE(again.ok()) << again.status().message();
    EXPECT_EQ(again->identity.content_digest, digest);
    EXPECT_EQ(ContentsOf(memory, *again), ContentsOf(**store, **manifest));
  }
  for (uint32_t i = 0; i < opened.source->layer_count(); ++i) total += opened.source->rows(i);
  EXPECT_EQ(rows, total);
}

// What a node serves can be checked without the folder.
TEST_P(ImportLayoutTest, RowsAreProcedural) {
  const OpenedFolder opened = OpenFolder(folder());
  MemoryStore store;
  const auto manifest =
      ImportFolder(*opened.source, opened.model, {.members = {"m0"}}, "m0", store);
  ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  const auto reader = *TableReader::Open(store, *manifest);
  const table::RowFormat format = *FormatOf(manifest->identity);
  std::vector<std::byte> expected(format.row_bytes());
  for (uint32_t i = 0; i < manifest->layers.size(); ++i) {
    for (const uint32_t partition : manifest->layers[i].held) {
      const Status read =
          reader->ReadPartition(i, partition, [&](uint64_t first, std::span<const std::byte> rows) {
            first += reader->cut(i).FirstRow(partition);
            for (size_t at = 0; at < rows.size(); at += expected.size(), ++first) {
              table::FillProceduralRow(format, 11, i, first, expected);
              const auto row = rows.subspan(at, expected.size());
              ASSERT_TRUE(std::equal(row.begin(), row.end(), expected.begin())) << first;
            }
          });
      ASSERT_TRUE(read.ok()) << read.message();
    }
  }
}

// The larger v41 has two files of pages a layer, the others one.
INSTANTIATE_TEST_SUITE_P(All, ImportLayoutTest,
                         testing::Values(Layout{"v41", "bf16", 2.3e-4}, Layout{"v41", "bf16", 1e-6},
                                         Layout{"paper", "bf16", 5e-4},
                                         Layout{"qwen-ple", "bf16", 5e-5},
                                         Layout{"qwen-ple", "fp8", 5e-5}),
                         [](const auto& layout) {
                           std::string name = layout.param.name + "_" + layout.param.dtype +
                                              (layout.param.rows_scale < 1e-5 ? "_least" : "");
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace engram::memnode
