// A bit that flips in a running node's memory, as a process: the client that meets it refuses the
// row and says so to the node, which writes it again.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/checkpoint/table_source.h"
#include "common/client/lookup/config.h"
#include "tests/e2e/durable_node.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"

namespace engram {
namespace {

using testing::HasSubstr;
using testing_support::DurableNode;

constexpr uint64_t kMappingBytesMax = uint64_t{1} << 30;

// Flips a bit of these bytes wherever the process has them in memory it may write; returns how
// often. -1: this process may not look.
int FlipInMemoryOf(pid_t pid, std::span<const std::byte> wanted) {
  const std::string folder = "/proc/" + std::to_string(pid);
  const int memory = ::open((folder + "/mem").c_str(), O_RDWR | O_CLOEXEC);
  if (memory < 0) return -1;
  int flipped = 0;
  std::ifstream maps(folder + "/maps");
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0, end = 0;
    char mode[5] = {};
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s", &begin, &end, mode) != 3) continue;
    if (mode[0] != 'r' || mode[1] != 'w') continue;
    if (end - begin > kMappingBytesMax) continue;  // no arena: a sanitizer's shadow
    std::vector<std::byte> bytes(end - begin);
    const ssize_t got = ::pread(memory, bytes.data(), bytes.size(), static_cast<off_t>(begin));
    if (got <= 0) continue;
    const auto last = bytes.begin() + got;
    for (auto at = std::search(bytes.begin(), last, wanted.begin(), wanted.end()); at != last;
         at = std::search(at + 1, last, wanted.begin(), wanted.end())) {
      const std::byte changed = *at ^ std::byte{0x04};
      const auto where = static_cast<off_t>(begin + static_cast<uint64_t>(at - bytes.begin()));
      if (::pwrite(memory, &changed, 1, where) == 1) ++flipped;
    }
  }
  ::close(memory);
  return flipped;
}

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
