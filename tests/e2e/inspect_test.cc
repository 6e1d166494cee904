// engramctl dump and verify: the same row and the same verdict from folder, store and node.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/e2e/durable_node.h"
#include "tests/support/cluster.h"

namespace engram {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using testing_support::DurableNode;
using testing_support::Finished;

class Inspect : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("inspect");
    model_ = testing_support::MakeTables(work_dir_, 1);
    node_ = std::make_unique<DurableNode>(work_dir_, work_dir_ + "/store");
    ASSERT_TRUE(node_->StartReady(model_)) << node_->process().Stderr();
  }
  void TearDown() override {
    node_.reset();
    std::filesystem::remove_all(work_dir_);
  }
  Finished Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), testing_support::Binary("engramctl"));
    return testing_support::RunToEnd(std::move(arguments), work_dir_);
  }
  json::object Dump(const std::string& where, const std::string& place) {
    const Finished run = Run({"dump", where, place, "--layer", "14", "--row", "4321", "--json"});
    EXPECT_EQ(run.exit_code, 0) << run.err;
    auto value = io::ParseJson(run.out, "dump");
    return value.ok() && value->is_object() ? value->get_object() : json::object();
  }

  std::string work_dir_, model_;
  std::unique_ptr<DurableNode> node_;
};

TEST_F(Inspect, ARowIsTheSameInFolderStoreAndNode) {
  const json::object folder = Dump("--model", model_);
  json::object store = Dump("--store", node_->store());
  const json::object node = Dump("--node", node_->control());
  EXPECT_EQ(store, node) << "also while the node has the store open";
  ASSERT_TRUE(folder.contains("bytes"));
  EXPECT_EQ(folder.at("bytes").as_string().size(), 2 * 264u);
  EXPECT_EQ(folder.at("values").as_array().size(), 256u);
  for (const auto& [key, value] : folder) {
    if (key == "model") continue;  // the folder's name
    EXPECT_EQ(store[key], value) << key;
  }
  EXPECT_EQ(store["owner"], "m0");
  const Finished text = Run({"dump", "--store", node_->store(), "--layer", "14", "--row", "4321"});
  EXPECT_THAT(text.out,
              AllOf(StartsWith("tables version 1, layer 14, row 4321"), HasSubstr("row 1 of 15"),
                    HasSubstr("page CRC-32C"), HasSubstr("values\n     0 ")));
}

TEST_F(Inspect, WhatIsNotThereIsToldInOneLine) {
  const auto expect_error = [&](std::vector<std::string> arguments, const std::string& text) {
    const Finished run = Run(std::move(arguments));
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.err, AllOf(StartsWith("engramctl: "), HasSubstr(text)));
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  };
  const std::string& store = node_->store();
  expect_error({"dump", "--store", store, "--layer", "2", "--row", "1"}, "layers 1, 14");
  expect_error({"dump", "--store", store, "--layer", "14", "--row", "99999999"}, "no row 99999999");
  expect_error({"dump", "--store", store, "--version", "9", "--layer", "14", "--row", "1"},
               "tables version 1");
  expect_error({"dump", "--store", work_dir_, "--layer", "14", "--row", "1"}, "holds no store");
  expect_error({"verify", "--store", store, "--name", "other"}, "named other");
  expect_error({"verify"}, "--store");
}

TEST_F(Inspect, VerifyingByNodeAndByFolderAgree) {
  const Finished folder = Run({"verify", "--store", node_->store()});
  const Finished node = Run({"verify", "--nodes", node_->control()});
  EXPECT_EQ(folder.exit_code, 0) << folder.err;
  EXPECT_EQ(node.exit_code, 0) << node.err;
  EXPECT_THAT(folder.out, AllOf(HasSubstr("is sound"), HasSubstr("proven")));
  EXPECT_THAT(node.out, AllOf(HasSubstr(node_->control()), HasSubstr("is sound")));
  const std::string file = testing_support::PageFiles(node_->store())[0];
  testing_support::FlipBit(file, 1'000'000);
  const Finished damaged = Run({"verify", "--store", node_->store()});
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_THAT(damaged.out, HasSubstr("1 pages in 1 partitions are damaged"));
}

}  // namespace
}  // namespace engram
