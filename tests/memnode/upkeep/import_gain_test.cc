// A version that is in the store already, imported for another map: from a source, or by another
// member's manifest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "memnode/store/rocks_store.h"
#include "memnode/upkeep/verify_report.h"
#include "tests/memnode/procedural_source.h"
#include "tests/memnode/upkeep/import_fixture.h"

namespace engram::memnode {
namespace {

class ImportGain : public testing::Test {
 protected:
  ImportGain() : root_(FreshFolder("import_gain")) { store_ = *OpenRocksStore(root_ + "/store"); }
  ~ImportGain() override {
    store_.reset();
    std::filesystem::remove_all(root_);
  }
  static table::ClusterMap MapOf(std::vector<std::string> members, uint32_t epoch) {
    table::ClusterMap map;
    map.members = std::move(members);
    map.epoch = epoch;
    return map;
  }
  // Every page of what the manifest says is held.
  void ExpectSound(const std::string& version) {
    const auto report = VerifyVersion(*store_, "procedural", version, {});
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_TRUE(report->at("damage").as_array().empty()) << json::serialize(*report);
  }
  Result<Manifest> Gain(const table::ClusterMap& map, const ImportOptions& options,
                        const std::string& version = "1") {
    const table::TableIdentity identity = source_.Identity(version);
    ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(identity, map, "m0"));
    return ImportTables(source_, identity, map, plan, *store_, options);
  }

  const ProceduralSource source_{{.layout = "v41", .rows_scale = 1e-4, .seed = 5}};
  const std::string root_;
  std::unique_ptr<RowStore> store_;
};

// A file of a store takes the place of those whose range it covers: with new partitions alone it
// took away the ones between them.
TEST_F(ImportGain, PartitionsBetweenNewOnesOfAFileStay) {
  const table::ClusterMap three = MapOf({"m0", "m1", "m2"}, 1);
  ASSERT_TRUE(ImportProcedural(source_, "1", three, "m0", *store_).ok());
  ExpectSound("1");
  const auto two = Gain(MapOf({"m0", "m1"}, 2), {});
  ASSERT_TRUE(two.ok()) << two.status().message();
  ExpectSound("1");
  const auto one = Gain(MapOf({"m0"}, 3), {});
  ASSERT_TRUE(one.ok()) << one.status().message();
  ExpectSound("1");
}

TEST_F(ImportGain, AnotherMembersManifestSaysWhatRowsMustBe) {
  MemoryStore others;
  const table::ClusterMap map = MapOf({"m1", "m0"}, 1);
  Manifest known = *ImportProcedural(source_, "1", map, "m1", others);
  for (Manifest::Layer& layer : known.layers) layer.held.clear();
  ImportOptions options;
  options.known = &known;
  options.whole_pages = true;
  const auto gained = Gain(map, options);
  ASSERT_TRUE(gained.ok()) << gained.status().message();
  EXPECT_EQ(gained->identity.content_digest, known.identity.content_digest);
  ExpectSound("1");
  // Rows that are others are refused, and nothing is complete.
  const ProceduralSource lies{{.layout = "v41", .rows_scale = 1e-4, .seed = 6}};
  store_.reset();
  store_ = *OpenRocksStore(root_ + "/second");
  const TablePlan plan = *MakePlan(source_.Identity("1"), map, "m0");
  const auto refused = ImportTables(lies, source_.Identity("1"), map, plan, *store_, options);
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition) << refused.status().message();
  EXPECT_FALSE(FindManifest(*store_, "procedural", "1")->has_value());
}

// Of a delta the partitions that come in addition are whole, and need no base.
TEST_F(ImportGain, ADeltaGainsWholePartitions) {
  const table::ClusterMap two = MapOf({"m0", "m1"}, 1);
  ASSERT_TRUE(ImportProcedural(source_, "1", two, "m0", *store_).ok());
  ImportOptions delta;
  delta.base_version = "1";
  ASSERT_TRUE(Gain(two, delta, "2").ok());
  ImportOptions options;
  options.whole_pages = true;
  const auto gained = Gain(MapOf({"m0"}, 2), options, "2");
  ASSERT_TRUE(gained.ok()) << gained.status().message();
  EXPECT_EQ(gained->base_version, "1");
  ExpectSound("2");
}

}  // namespace
}  // namespace engram::memnode
