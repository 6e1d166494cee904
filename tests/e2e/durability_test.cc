// kill -9 at random points: a node always starts again, a version that was published is still there
// bit for bit, and what is not complete is never served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "tests/e2e/durable_node.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::steady_clock;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::CompareServedRows;
using testing_support::CompleteVersions;
using testing_support::DurableNode;
using testing_support::Process;
using testing_support::SpreadPoints;

class Durability : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("durability");
    model_ = testing_support::MakeTables(work_dir_, 1);
    store_ = work_dir_ + "/store";
  }
  void TearDown() override { std::filesystem::remove_all(work_dir_); }

  // The content digest of a folder, from an import that nobody disturbed; and how long it took to
  // be ready.
  std::string DigestOf(const std::string& model_dir, microseconds* took = nullptr) {
    const std::string store = work_dir_ + "/undisturbed";
    DurableNode node(work_dir_, store);
    const auto begin = steady_clock::now();
    EXPECT_TRUE(node.StartReady(model_dir)) << node.process().Stderr();
    if (took != nullptr) *took = duration_cast<microseconds>(steady_clock::now() - begin);
    node.Stop();
    const auto versions = CompleteVersions(store);
    EXPECT_TRUE(versions.ok()) << versions.status().message();
    std::filesystem::remove_all(store);
    return versions.ok() && versions->contains("1") ? versions->at("1") : "none";
  }

  std::string work_dir_;
  std::string model_;
  std::string store_;
};

TEST_F(Durability, ImportKilledAnywhereEndsCompleteAndRight) {
  microseconds span{};
  const std::string digest = DigestOf(model_, &span);
  DurableNode node(work_dir_, store_);
  int complete = 0;
  for (const microseconds point : SpreadPoints(span, 16, /*seed=*/11)) {
    Process& process = node.Start(model_);
    std::this_thread::sleep_for(point);
    ASSERT_TRUE(process.Running()) << process.Stderr();
    node.Kill();
    if (!std::filesystem::exists(store_ + "/CURRENT")) continue;  // killed before it opened
    const auto versions = CompleteVersions(store_);
    ASSERT_TRUE(versions.ok()) << "killed after " << point.count()
                               << " us: " << versions.status().message();
    if (versions->empty()) continue;  // not complete, and does not say that it is
    ASSERT_EQ(versions->at("1"), digest);
    ++complete;
    std::filesystem::remove_all(store_);
  }
  RecordProperty("killed_after_it_was_complete", complete);
  ASSERT_TRUE(node.StartReady(model_)) << node.process().Stderr();
  const Status served = CompareServedRows(node.control(), model_, "tables", "1", 500, 1);
  EXPECT_TRUE(served.ok()) << served.message();
  node.Stop();
  EXPECT_EQ(CompleteVersions(store_)->at("1"), digest);
}

}  // namespace
}  // namespace engram
