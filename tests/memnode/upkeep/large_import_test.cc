// Two gigabytes of V4.1's tables: made, imported by two members, restarted, verified, served, and
// every row compared with the shards.
#include <gtest/gtest.h>

#include <filesystem>

#include "memnode/store/rocks_store.h"
#include "tests/memnode/upkeep/import_fixture.h"

namespace engram::memnode {
namespace {

TEST(LargeImport, EveryRowOfTwoGigabytesIsServed) {
  const std::string root = FreshFolder("large_import");
  constexpr uint64_t kDiskBytes = 6'000'000'000;
  if (std::filesystem::space(root).available < kDiskBytes) {
    GTEST_SKIP() << "less than " << kDiskBytes << " bytes are free in " << root;
  }
  ctl::MakeLayoutOptions options;
  options.layout = "v41";
  options.rows_scale = 0.01;
  options.out = root + "/model";
  ctl::MadeLayout made;
  const Status status = ctl::MakeLayoutFolder(options, &made);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_GE(made.table_bytes, 2'000'000'000u);
  const table::ClusterMap map = {.epoch = 1, .members = {"m0", "m1"}};
  uint64_t rows = 0;
  for (const std::string& member : map.members) {
    const std::string path = root + "/store";
    {
      const OpenedFolder opened = OpenFolder(options.out);
      auto store = OpenRocksStore(path);
      ASSERT_TRUE(store.ok()) << store.status().message();
      const auto imported = ImportFolder(*opened.source, opened.model, map, member, **store);
      ASSERT_TRUE(imported.ok()) << imported.status().message();
    }
    auto store = OpenRocksStore(path);  // as after a restart
    ASSERT_TRUE(store.ok()) << store.status().message();
    const auto manifest = FindManifest(**store, "model", "1");
    ASSERT_TRUE(manifest.ok() && *manifest);
    rows += ExpectServed(options.out, **store, **manifest, map, member);
    store->reset();
    std::filesystem::remove_all(path);
    if (testing::Test::HasFailure()) break;
  }
  EXPECT_EQ(rows, made.table_rows);
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace engram::memnode
