// What a model folder says about its tables.
#include "common/checkpoint/model_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace engram::client {
namespace {

namespace fs = std::filesystem;

TEST(FolderName, OneFolderHasOneNameHoweverAPathLeadsToIt) {
  const fs::path root =
      fs::path(testing::TempDir()) / ("folder_name_" + std::to_string(::getpid()));
  fs::create_directories(root / "v41" / "inner");
  fs::create_directory_symlink(root / "v41", root / "latest");
  const std::string folder = (root / "v41").string();
  const fs::path before = fs::current_path();
  fs::current_path(folder);
  for (const std::string& path :
       {folder, folder + "/", folder + "//", folder + "/.", folder + "/inner/..", std::string("."),
        std::string("./"), std::string("inner/.."), std::string("../latest"),
        (root / "latest").string(), (root / "latest").string() + "/"}) {
    EXPECT_EQ(FolderName(path), "v41") << path;
  }
  fs::current_path(before);
  EXPECT_EQ(FolderName((root / "absent").string() + "/"), "absent");
  EXPECT_EQ(FolderName(""), "");
  fs::remove_all(root);
}

}  // namespace
}  // namespace engram::client
