// A bit that flips in a running node's memory, as a process: the client that meets it refuses the
// row and says so to the node, which writes it again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/checkpoint/table_source.h"
#include "common/client/lookup/config.h"
#include "tests/e2e/durable_node.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"
#include "tests/support/process_memory.h"

namespace engram {
namespace {

using testing::HasSubstr;
using testing_support::DurableNode;
using testing_support::FlipInMemoryOf;

class MemoryFault : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("memory_fault");
    model_ = testing_support::MakeTables(work_dir_, 1);
    node_ = std::make_unique<DurableNode>(work_dir_, work_dir_ + "/store");
  }
  void TearDown() override {
    node_.reset();
    std::filesystem::remove_all(work_dir_);
  }

  std::string work_dir_, model_;
  std::unique_ptr<DurableNode> node_;
};

INSTANTIATE_TEST_SUITE_P(, MemoryFault, testing::Values("local", "gather"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(MemoryFault, ABitThatFlipsInTheArenaIsReportedByTheClientAndMendedByTheNode) {
  node_->Set("arena.pages=small");
  node_->Set("arena.share=on");
  node_->Set("arena.scrub_mib_s=0");  // the client's word only
  ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  const auto model = client::LoadModelTables(model_, testing_support::kTables, "1");
  ASSERT_TRUE(model.ok());
  const auto source = client::OpenTableSource(model_, *model);
  ASSERT_TRUE(source.ok());
  client::LookupConfig config;
  config.memnodes = {node_->control()};
  config.path = GetParam();
  const auto rows = config.Connect(model->layout, model->identity);
  ASSERT_TRUE(rows.ok()) << rows.status().message();

  constexpr uint64_t kRow = 4321;
  std::vector<std::byte> expected((*source)->row_format().row_bytes()), served(expected.size());
  ASSERT_TRUE((*source)->ReadRows(0, kRow, 1, expected.data()).ok());
  const auto ask = [&]() -> Status {
    const client::LayerLookup lookup{0, {&kRow, 1}, served};
    const TimePoint deadline = Clock::Real().Now() + std::chrono::seconds(10);
    ASSIGN_OR_RETURN(auto ticket, (*rows)->Submit({&lookup, 1}, deadline));
    return ticket.Wait(0);
  };
  ASSERT_TRUE(ask().ok());
  const int flipped = FlipInMemoryOf(node_->process().pid(), expected);
  if (flipped < 0) GTEST_SKIP() << "this user may not look into the node's memory";
  ASSERT_GT(flipped, 0);
  Status asked = ask();
  EXPECT_EQ(asked.code(), Code::kDataLoss) << asked.message();
  EXPECT_TRUE(testing_support::Eventually([&] {
    asked = ask();
    return asked.ok();
  })) << asked.message()
      << "\n"
      << node_->process().Stderr();
  EXPECT_TRUE(served == expected);
  EXPECT_THAT(node_->process().Stderr(), HasSubstr("rows in memory are damaged"));
  EXPECT_THAT(node_->process().Stderr(), HasSubstr("found_by=client"));
}

}  // namespace
}  // namespace engram
