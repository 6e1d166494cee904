#include "common/io/read_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "common/checkpoint/safetensors.h"
#include "common/io/json.h"

namespace engram::io {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ReadFileTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("engram_read_file_" + std::to_string(::getpid()));
    fs::create_directory(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string Path(const char* name) const { return (dir_ / name).string(); }

  fs::path dir_;
};

TEST_F(ReadFileTest, AFileIsReadWholeAndNoFurtherThanAllowed) {
  std::ofstream(Path("file")) << std::string(1'000'000, 'x');
  EXPECT_EQ(ReadFile(Path("file"), 1'000'000)->size(), 1'000'000u);
  EXPECT_THAT(ReadFile(Path("file"), 999'999).status().message(),
              HasSubstr("more than 999999 bytes"));
  EXPECT_EQ(ReadFile(Path("none"), 10).status().code(), Code::kNotFound);
}

TEST_F(ReadFileTest, AFolderInAFilesPlaceIsNamedAsOne) {
  fs::create_directory(Path("config.json"));
  EXPECT_THAT(ParseJsonFile(Path("config.json")).status().message(), HasSubstr("Is a directory"));
}

TEST_F(ReadFileTest, ADeviceWithoutEndIsReadNoFurtherThanAllowed) {
  EXPECT_THAT(ReadFile("/dev/zero", 1 << 20).status().message(), HasSubstr("more than"));
}

// open() and read() would wait for ever for one that writes to it.
TEST_F(ReadFileTest, APipeThatNothingWritesToDoesNotHang) {
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(Path("pipe"), 100, 20).status().message(), HasSubstr("nothing came"));
  fs::create_symlink("pipe", Path("model.safetensors"));
  EXPECT_THAT(Checkpoint::Open(dir_.string()).status().message(),
              HasSubstr("it is not a regular file"));
}

TEST_F(ReadFileTest, APipeIsReadToItsEnd) {
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  std::jthread writer([&] {
    std::ofstream to(Path("pipe"));  // waits for the reader
    to << "{\"a\":" << std::flush << "1}";
  });
  EXPECT_EQ(*ReadFile(Path("pipe"), 100), "{\"a\":1}");
}

TEST_F(ReadFileTest, ALinkToNothingIsAnEntry) {
  EXPECT_FALSE(HasEntry(Path("link")));
  fs::create_symlink("/nonexistent", Path("link"));
  EXPECT_TRUE(HasEntry(Path("link")));
  EXPECT_FALSE(ReadFile(Path("link"), 10).ok());
}

}  // namespace
}  // namespace engram::io
