// Folders that are wrong, or change while they are read: told by shard or tensor, nothing imported.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/checkpoint/safetensors.h"
#include "tests/memnode/upkeep/import_fixture.h"

namespace engram::memnode {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// Shards of rows as Qwen names them, three of four rows of eight values each, one file each.
struct PleFolder {
  std::vector<int> shards = {0, 1, 2};
  int odd_one = -1;  // the shard that has:
  DType odd_dtype = DType::kBf16;
  uint64_t odd_columns = 8;

  void Write(const std::string& folder) const {
    fs::remove_all(folder);
    fs::create_directories(folder);
    std::ofstream(folder + "/config.json") << R"({"text_config": {"ple_layer_ids": [2]}})";
    std::map<std::string, std::string> weight_map;
    for (const int shard : shards) {
      const std::string name = fmt::format(
          "model.language_model.layers.1.ple.ple_embedding.ngram_embedding.shard_{}.weight", shard);
      const std::string file = fmt::format("model-{}.safetensors", shard);
      const DType dtype = shard == odd_one ? odd_dtype : DType::kBf16;
      const uint64_t columns = shard == odd_one ? odd_columns : 8;
      auto writer =
          io::SafetensorsWriter::Create(folder + "/" + file, {{name, dtype, {4, columns}}});
      CHECK(writer.ok()) << writer.status().message();
      CHECK(writer->Append(std::vector<std::byte>(4 * columns * SizeOf(dtype))).ok());
      CHECK(writer->Finish().ok());
      weight_map[name] = file;
    }
    CHECK(io::WriteSafetensorsIndex(folder, weight_map, 1).ok());
  }
};

class ImportSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = FreshFolder("import_source");
    folder_ = root_ + "/model";
    shard_ = folder_ + "/model.safetensors";
  }
  void TearDown() override { fs::remove_all(root_); }

  // Imports a tiny folder, with `harm` done before read `at`; it must fail without a manifest.
  Status ImportHarmed(uint64_t at, const std::function<void()>& harm) {
    ManyLayers().Write(folder_);
    const OpenedFolder opened = OpenFolder(folder_);
    WatchedSource watched(*opened.source);
    watched.before_read = [&](uint64_t number) {
      if (number == at) harm();
    };
    ImportOptions options;
    options.threads = 2;
    const auto manifest =
        ImportFolder(watched, opened.model, {.members = {"m0"}}, "m0", store_, options);
    EXPECT_FALSE(FindManifest(store_, "model", "1")->has_value());
    EXPECT_FALSE(manifest.ok());
    return manifest.ok() ? OkStatus() : manifest.status();
  }
  void ExpectChanged(const Status& status, const std::string& how) {
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.message();
    EXPECT_THAT(status.message(), AllOf(HasSubstr(shard_), HasSubstr(how)));
  }
  Status LoadStatus() { return client::LoadModelTables(folder_, "model", "1").status(); }

  std::string root_, folder_, shard_;
  MemoryStore store_;
};

TEST_F(ImportSourceTest, AShardCutShortMeanwhileIsTold) {
  ExpectChanged(ImportHarmed(10, [&] { fs::resize_file(shard_, fs::file_size(shard_) / 2); }),
                "it ends too early");
  // Behind what is still to be read.
  ExpectChanged(ImportHarmed(10, [&] { fs::resize_file(shard_, fs::file_size(shard_) + 1); }),
                "its size");
}

TEST_F(ImportSourceTest, AShardWrittenToMeanwhileIsTold) {
  ExpectChanged(ImportHarmed(10,
                             [&] {
                               const int fd = ::open(shard_.c_str(), O_WRONLY | O_CLOEXEC);
                               const timespec times[2] = {{0, UTIME_OMIT}, {1'000'000'000, 7}};
                               ASSERT_EQ(::pwrite(fd, "x", 1, 1 << 20), 1);
                               ASSERT_EQ(::futimens(fd, times), 0);
                               ::close(fd);
                             }),
                "it was written to");
}

TEST_F(ImportSourceTest, AShardReplacedMeanwhileIsTold) {
  ExpectChanged(ImportHarmed(100,
                             [&] {
                               fs::copy_file(shard_, shard_ + ".new");
                               fs::last_write_time(shard_ + ".new", fs::last_write_time(shard_));
                               fs::rename(shard_ + ".new", shard_);
                             }),
                "it is another file");
}

TEST_F(ImportSourceTest, AShardRemovedMeanwhileIsTold) {
  ExpectChanged(ImportHarmed(0, [&] { fs::remove(shard_); }), "it is gone");
}

TEST_F(ImportSourceTest, AMissingShardIsNamed) {
  PleFolder().Write(folder_);
  ASSERT_TRUE(LoadStatus().ok()) << LoadStatus().message();
  fs::remove(folder_ + "/model-1.safetensors");
  EXPECT_EQ(LoadStatus().code(), Code::kNotFound);
  EXPECT_THAT(LoadStatus().message(), HasSubstr("model-1.safetensors"));
}

TEST_F(ImportSourceTest, AShardMissingInTheMiddleIsNamed) {
  PleFolder{.shards = {0, 1, 3, 4}}.Write(folder_);
  EXPECT_EQ(LoadStatus().code(), Code::kInvalidArgument);
  EXPECT_THAT(LoadStatus().message(), HasSubstr("shard_2.weight is missing"));
  PleFolder{.shards = {1, 2}}.Write(folder_);
  EXPECT_EQ(LoadStatus().code(), Code::kNotFound);
  EXPECT_THAT(LoadStatus().message(), HasSubstr("shard_0.weight"));
}

TEST_F(ImportSourceTest, AShardOfAnotherTypeOrWidthIsNamed) {
  PleFolder{.odd_one = 1, .odd_dtype = DType::kF8E4m3}.Write(folder_);
  EXPECT_THAT(LoadStatus().message(), AllOf(HasSubstr("shard_1.weight"), HasSubstr("F8_E4M3")));
  PleFolder{.odd_one = 2, .odd_columns = 16}.Write(folder_);
  EXPECT_THAT(LoadStatus().message(), AllOf(HasSubstr("shard_2.weight"), HasSubstr("[4, 16]")));
  PleFolder{.odd_one = 0, .odd_dtype = DType::kF32}.Write(folder_);
  EXPECT_THAT(LoadStatus().message(), AllOf(HasSubstr("shard_0.weight"), HasSubstr("F32")));
  EXPECT_EQ(LoadStatus().code(), Code::kInvalidArgument);
}

TEST_F(ImportSourceTest, RowsAcrossShardsAreReadInOrder) {
  PleFolder().Write(folder_);
  // The row's number in its first byte.
  for (int shard = 0; shard < 3; ++shard) {
    const std::string path = fmt::format("{}/model-{}.safetensors", folder_, shard);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto data = static_cast<std::streamoff>(fs::file_size(path)) - 64;
    for (int row = 0; row < 4; ++row) {
      file.seekp(data + row * 16);
      file.put(static_cast<char>(shard * 4 + row));
    }
  }
  const OpenedFolder opened = OpenFolder(folder_);
  ASSERT_EQ(opened.source->rows(0), 12u);
  for (uint64_t first = 0; first < 12; ++first) {
    for (uint64_t count = 1; first + count <= 12; ++count) {
      std::vector<std::byte> rows(count * 16);
      ASSERT_TRUE(opened.source->ReadRows(0, first, count, rows.data()).ok());
      for (uint64_t i = 0; i < count; ++i) {
        ASSERT_EQ(std::to_integer<uint64_t>(rows[i * 16]), first + i);
      }
    }
  }
}

// A folder of V4.1's layout with more shards than the one of its tables: two that are not there,
// and routed experts, which are I8.
TEST_F(ImportSourceTest, TwoTableShardsAloneAreEnoughWhateverElseAFolderHolds) {
  TinyCheckpoint{.variant = "v41"}.Write(folder_);
  const auto whole = io::Checkpoint::Open(folder_);
  ASSERT_TRUE(whole.ok());
  std::map<std::string, std::string> weight_map = {
      {"embed.weight", "model-1.safetensors"},
      {"layers.0.ffn.experts.0.w1.weight", "model-3.safetensors"},
      {"layers.0.ffn.experts.0.w1.scale", "model-2.safetensors"}};
  for (const int layer : {1, 3}) {
    const std::string file = fmt::format("model-{}.safetensors", layer == 1 ? 3 : 4);
    std::vector<io::SafetensorsWriter::Declaration> declarations;
    std::vector<std::span<const std::byte>> bytes;
    for (const char* leaf : {"weight", "scale"}) {
      const std::string name = fmt::format("model.layers.{}.engram.embed.{}", layer, leaf);
      const auto tensor = whole->Get(name);
      ASSERT_TRUE(tensor.ok());
      declarations.push_back({name, *tensor->info->dtype, tensor->info->shape});
      bytes.push_back(tensor->bytes);
      weight_map[name] = file;
    }
    const std::vector<std::byte> expert(4 * 8);
    if (layer == 1) {
      declarations.push_back({"layers.0.ffn.experts.0.w1.weight", DType::kU8, {4, 8}});
      bytes.push_back(expert);
    }
    auto writer = io::SafetensorsWriter::Create(folder_ + "/" + file, declarations);
    ASSERT_TRUE(writer.ok());
    for (const auto& tensor : bytes) ASSERT_TRUE(writer->Append(tensor).ok());
    ASSERT_TRUE(writer->Finish().ok());
  }
  {  // U8 was written, which is as long as I8
    std::fstream file(folder_ + "/model-3.safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    std::string text(2048, ' ');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    const size_t at = text.find("\"U8\"");
    ASSERT_NE(at, std::string::npos);
    file.seekp(static_cast<std::streamoff>(at));
    file << "\"I8\"";
  }
  const std::vector<std::byte> row = CheckpointRow(folder_, 1, 7);
  fs::remove(shard_);
  ASSERT_TRUE(io::WriteSafetensorsIndex(folder_, weight_map, 1).ok());
  const OpenedFolder opened = OpenFolder(folder_);
  std::vector<std::byte> read(row.size());
  ASSERT_TRUE(opened.source->ReadRows(1, 7, 1, read.data()).ok());
  EXPECT_EQ(read, row);
  ImportOptions options;
  options.threads = 2;
  const auto manifest =
      ImportFolder(*opened.source, opened.model, {.members = {"m0"}}, "m0", store_, options);
  EXPECT_TRUE(manifest.ok()) << manifest.status().message();
}

TEST_F(ImportSourceTest, ATableOfATypeThatCannotBeReadIsNamed) {
  TinyCheckpoint{.variant = "v41"}.Write(folder_);
  std::fstream file(shard_, std::ios::in | std::ios::out | std::ios::binary);
  std::string text(256, ' ');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  const size_t at = text.find("F8_E4M3");
  ASSERT_NE(at, std::string::npos);
  file.seekp(static_cast<std::streamoff>(at));
  file << "F8_E5M2";
  file.close();
  EXPECT_EQ(LoadStatus().code(), Code::kInvalidArgument);
  EXPECT_THAT(LoadStatus().message(),
              AllOf(HasSubstr("model.layers.1.engram.embed.weight"), HasSubstr("F8_E5M2")));
}

TEST_F(ImportSourceTest, ATableWithoutItsScalesOrRowsIsNamed) {
  const std::string scale = "model.layers.3.engram.embed.scale";
  TinyCheckpoint{.variant = "v41", .left_out = scale}.Write(folder_);
  auto model = client::LoadModelTables(folder_, "model", "1");
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_THAT(client::OpenTableSource(folder_, *model).status().message(), HasSubstr(scale));
  TinyCheckpoint{.rows_missing = 1}.Write(folder_);
  model = client::LoadModelTables(folder_, "model", "1");
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_THAT(client::OpenTableSource(folder_, *model).status().message(), HasSubstr("layer 1"));
}

}  // namespace
}  // namespace engram::memnode
