// Safetensors: what is written is read back; every lie in a header is refused by name; no bytes
// crash the reader.
#include "common/checkpoint/safetensors.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/base/rng.h"

namespace engram::io {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = fs::path(testing::TempDir()) / (std::string("safetensors_") + info->name());
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }

  fs::path directory_;
};

std::span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string FileOf(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + data;
}

// Of the file, or of its first unusable tensor.
std::string Refusal(const std::string& file) {
  const auto parsed = ParseSafetensorsHeader(AsBytes(file), "f");
  Status status = parsed.status();
  for (size_t i = 0; status.ok() && i < parsed->size(); ++i) status = (*parsed)[i].usable;
  if (status.ok()) return "accepted";
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  return status.message();
}

std::string RefusalOf(const std::string& header, size_t data_bytes) {
  return Refusal(FileOf(header, std::string(data_bytes, 'x')));
}

void WriteShard(const std::string& path, const std::string& name, const std::string& bytes) {
  auto writer = SafetensorsWriter::Create(path, {{name, DType::kU8, {bytes.size()}}});
  ASSERT_TRUE(writer.ok()) << writer.status().ToString();
  ASSERT_TRUE(writer->Append(AsBytes(bytes)).ok());
  ASSERT_TRUE(writer->Finish().ok());
}

TEST_F(SafetensorsTest, WrittenTensorsAreReadBack) {
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> bytes = {7, 8, 9};
  auto writer =
      SafetensorsWriter::Create(Path("model.safetensors"), {{"w", DType::kF32, {2, 3}},
                                                            {"empty", DType::kBf16, {0, 4}},
                                                            {"scalar", DType::kF32, {}},
                                                            {"b", DType::kU8, {3}}});
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->Append(std::as_bytes(std::span(weights))).ok());
  ASSERT_TRUE(writer->Append(std::as_bytes(std::span(weights).first(1))).ok());
  ASSERT_TRUE(writer->Append(std::as_bytes(std::span(bytes))).ok());
  ASSERT_TRUE(writer->Finish().ok());

  const auto checkpoint = Checkpoint::Open(directory_.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  EXPECT_EQ(checkpoint->tensors().size(), 4u);
  const auto w = checkpoint->Get("w", std::vector<uint64_t>{2, 3}, std::vector{DType::kF32});
  ASSERT_TRUE(w.ok()) << w.status().ToString();
  ASSERT_EQ(w->bytes.size(), 24u);
  EXPECT_EQ(std::memcmp(w->bytes.data(), weights.data(), 24), 0);
  EXPECT_EQ(w->info->element_count(), 6u);
  EXPECT_EQ(checkpoint->Get("b")->bytes[2], std::byte{9});
  EXPECT_EQ(checkpoint->Get("empty")->bytes.size(), 0u);
  EXPECT_TRUE(checkpoint->Get("scalar", std::vector<uint64_t>{1}, std::vector{DType::kF32}).ok());
}

TEST_F(SafetensorsTest, GetNamesWhatDiffers) {
  WriteShard(Path("model.safetensors"), "t", "abcd");
  const auto checkpoint = Checkpoint::Open(directory_.string());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(checkpoint->Get("u").status().code(), Code::kNotFound);
  EXPECT_THAT(checkpoint->Get("u").status().message(), HasSubstr("\"u\""));
  const std::vector<uint64_t> shape = {2, 2};
  EXPECT_THAT(checkpoint->Get("t", shape, std::vector{DType::kU8}).status().message(),
              HasSubstr("has shape [4] where the configuration needs [2,2]"));
  const std::vector<uint64_t> right = {4};
  EXPECT_THAT(
      checkpoint->Get("t", right, std::vector{DType::kBf16, DType::kF32}).status().message(),
      HasSubstr("is U8 where BF16 or F32 is needed"));
}

TEST_F(SafetensorsTest, WriterRefusesMoreOrFewerBytesThanDeclared) {
  auto writer = SafetensorsWriter::Create(Path("a"), {{"t", DType::kU8, {4}}});
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(writer->Append(AsBytes("12345")).code(), Code::kFailedPrecondition);
  ASSERT_TRUE(writer->Append(AsBytes("123")).ok());
  EXPECT_EQ(writer->Finish().code(), Code::kFailedPrecondition);
  EXPECT_FALSE(
      SafetensorsWriter::Create(Path("a"), {{"t", DType::kU8, {1}}, {"t", DType::kU8, {}}}).ok());
  EXPECT_FALSE(SafetensorsWriter::Create(Path("a"), {{"t", DType::kF32, {1ull << 63, 4}}}).ok());
}

TEST_F(SafetensorsTest, ShardsOfAnIndexAreOneCheckpoint) {
  WriteShard(Path("model-00001-of-00002.safetensors"), "a", "first");
  WriteShard(Path("model-00002-of-00002.safetensors"), "b", "second");
  ASSERT_TRUE(WriteSafetensorsIndex(directory_.string(),
                                    {{"a", "model-00001-of-00002.safetensors"},
                                     {"b", "model-00002-of-00002.safetensors"}},
                                    11)
                  .ok());
  const auto checkpoint = Checkpoint::Open(directory_.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  EXPECT_EQ(checkpoint->Get("a")->bytes.size(), 5u);
  EXPECT_EQ(checkpoint->Get("b")->bytes.size(), 6u);
}

TEST_F(SafetensorsTest, IndexThatDoesNotMatchItsShardsIsRefused) {
  // Of the folder, or of its first unusable tensor.
  const auto refusal = [&](const std::map<std::string, std::string>& weight_map) {
    EXPECT_TRUE(WriteSafetensorsIndex(directory_.string(), weight_map, 1).ok());
    const auto opened = Checkpoint::Open(directory_.string());
    if (!opened.ok()) return opened.status().message();
    for (const auto& [name, info] : opened->tensors()) {
      const auto got = opened->Get(name);
      if (!got.ok()) return got.status().message();
    }
    return std::string("accepted");
  };
  WriteShard(Path("1.safetensors"), "a", "first");
  WriteShard(Path("2.safetensors"), "b", "second");
  WriteShard(Path("3.safetensors"), "a", "again");
  EXPECT_THAT(refusal({{"a", "1.safetensors"}, {"0", "2.safetensors"}}),
              HasSubstr("tensor \"0\" is not in 2.safetensors"));
  EXPECT_THAT(refusal({{"a", "1.safetensors"}, {"c", "2.safetensors"}}),
              HasSubstr("tensor \"b\" of " + Path("2.safetensors") + " is not in the index"));
  EXPECT_THAT(refusal({{"a", "2.safetensors"}, {"b", "1.safetensors"}}),
              HasSubstr("should be in 2.safetensors but is in 1.safetensors"));
  EXPECT_THAT(refusal({{"a", "1.safetensors"}, {"b", "3.safetensors"}}), HasSubstr("is also in"));
  EXPECT_THAT(refusal({{"a", "../1.safetensors"}}), HasSubstr("not the name of a file"));
  EXPECT_THAT(refusal({{"a", "4.safetensors"}}), HasSubstr("cannot open"));
  WriteShard(Path("model.safetensors"), "a", "first");
  EXPECT_THAT(refusal({{"a", "1.safetensors"}}), HasSubstr("both"));
}

TEST_F(SafetensorsTest, MissingFolderAndEmptyFolderAreNotFound) {
  EXPECT_EQ(Checkpoint::Open(Path("absent")).status().code(), Code::kNotFound);
  EXPECT_EQ(Checkpoint::Open(directory_.string()).status().code(), Code::kNotFound);
}

TEST_F(SafetensorsTest, FilesOfBadLengthAreRefused) {
  EXPECT_THAT(Refusal(""), HasSubstr("cut short"));
  EXPECT_THAT(Refusal("1234567"), HasSubstr("cut short"));
  EXPECT_THAT(Refusal(std::string(8, '\xff')), HasSubstr("not a safetensors file?"));
  EXPECT_THAT(Refusal(FileOf("{}", "").substr(0, 9)), HasSubstr("cut short"));
  EXPECT_THAT(RefusalOf("{}", 3), HasSubstr("3 bytes follow the last tensor"));
  const std::string whole =
      FileOf(R"({"t":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "abc");
  EXPECT_EQ(Refusal(whole), "accepted");
  EXPECT_THAT(Refusal(whole.substr(0, whole.size() - 1)), HasSubstr("not a range inside"));
}

TEST_F(SafetensorsTest, LyingDescriptionsAreRefusedByName) {
  const struct {
    const char* header;
    const char* message;
  } cases[] = {
      {"[]", "not a JSON object"},
      {"{\"t\"", "not valid JSON"},
      {R"({"t":3})", "tensor \"t\": its description is not an object"},
      {R"({"t":{"dtype":"U8","shape":[4]}})", "no \"data_offsets\""},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"extra":1}})", "unknown member"},
      {R"({"t":{"dtype":"F17","shape":[2],"data_offsets":[0,4]}})", "dtype \"F17\""},
      {R"({"t":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}})", "[7] of F4 does not fill"},
      {R"({"t":{"dtype":7,"shape":[2],"data_offsets":[0,4]}})", "not a string"},
      {R"({"t":{"dtype":"U8","shape":4,"data_offsets":[0,4]}})", "not a list"},
      {R"({"t":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}})", "-4, which is not a size"},
      {R"({"t":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}})", "not a size"},
      {R"({"t":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4],"data_offsets":[0,4]}})",
       "17 dimensions"},
      {R"({"t":{"dtype":"U8","shape":[5],"data_offsets":[0,4]}})", "does not fill its 4 bytes"},
      {R"({"t":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})",
       "does not fill"},
      {R"({"t":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})", "file's 4 data bytes"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", "not a range"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4,8]}})", "not a range"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("u":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
       "two tensors overlap"},
      {R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("u":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
       "bytes of no tensor"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       "\"t\" is described twice"},
      {R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("\u0074":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       "is described twice"},
      {R"({"__metadata__":{"k":1}})", "__metadata__"},
  };
  for (const auto& c : cases) EXPECT_THAT(RefusalOf(c.header, 4), HasSubstr(c.message)) << c.header;
}

TEST_F(SafetensorsTest, EveryElementTypeOfTheFormatIsListed) {
  const std::pair<const char*, int> types[] = {
      {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
      {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
      {"I64", 64},        {"U64", 64}};
  for (const auto& [name, bits] : types) {
    const int bytes = bits * 8 * 3 / 8;
    EXPECT_EQ(
        RefusalOf(fmt::format(R"({{"t":{{"dtype":"{}","shape":[8,3],"data_offsets":[0,{}]}}}})",
                              name, bytes),
                  static_cast<size_t>(bytes)),
        "accepted")
        << name;
  }
}

// The routed experts of V4.1 are I8, which no part of this program computes with.
TEST_F(SafetensorsTest, ATensorThatIsNotUsedNeverDecidesWhetherAFolderOpens) {
  const std::string wrong[] = {
      R"("dtype":"I8","shape":[4],"data_offsets":[0,4])",
      R"("dtype":"F17","shape":[4],"data_offsets":[0,4])",
      R"("dtype":"F32","shape":[4],"data_offsets":[0,4])",
      R"("dtype":"U8","shape":"4","data_offsets":[0,4])",
      R"("dtype":"U8","shape":[4],"data_offsets":[0,4],"note":1)",
      R"("dtype":"U8","shape":[4],"data_offsets":[0,400])",
  };
  for (const std::string& description : wrong) {
    std::ofstream(Path("model.safetensors"), std::ios::binary)
        << FileOf(R"({"unused":{)" + description +
                      R"(},"used":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}})",
                  "----abc");
    const auto checkpoint = Checkpoint::Open(directory_.string());
    ASSERT_TRUE(checkpoint.ok()) << description << ": " << checkpoint.status().message();
    const auto used = checkpoint->Get("used");
    ASSERT_TRUE(used.ok()) << used.status().message();
    EXPECT_EQ(used->bytes[2], std::byte{'c'});
    const std::vector<uint64_t> shape = {4};
    const auto unused = checkpoint->Get("unused", shape, std::vector{DType::kF32});
    EXPECT_THAT(unused.status().message(), HasSubstr("\"unused\"")) << description;
    EXPECT_THAT(unused.status().message(), HasSubstr(Path("model.safetensors"))) << description;
  }
}

TEST_F(SafetensorsTest, AShardThatIsNotUsedNeedNotBeThere) {
  WriteShard(Path("1.safetensors"), "a", "first");
  std::ofstream(Path("3.safetensors")) << "not a shard at all";
  ASSERT_TRUE(WriteSafetensorsIndex(
                  directory_.string(),
                  {{"a", "1.safetensors"}, {"b", "2.safetensors"}, {"c", "3.safetensors"}}, 1)
                  .ok());
  const auto checkpoint = Checkpoint::Open(directory_.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_TRUE(checkpoint->Get("a").ok());
  EXPECT_EQ(checkpoint->Get("b").status().code(), Code::kNotFound);
  EXPECT_THAT(checkpoint->Get("b").status().message(),
              testing::AllOf(HasSubstr("\"b\""), HasSubstr(Path("2.safetensors"))));
  EXPECT_EQ(checkpoint->Get("c").status().code(), Code::kInvalidArgument);
  EXPECT_THAT(checkpoint->Get("c").status().message(),
              testing::AllOf(HasSubstr("\"c\""), HasSubstr(Path("3.safetensors"))));
}

TEST_F(SafetensorsTest, ShardsWithoutAnIndexAreOneCheckpoint) {
  WriteShard(Path("model-00007-of-00009.safetensors"), "a", "first");
  WriteShard(Path("model-00009-of-00009.safetensors"), "b", "second");
  const auto checkpoint = Checkpoint::Open(directory_.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->Get("a")->bytes.size(), 5u);
  EXPECT_EQ(checkpoint->Get("b")->bytes.size(), 6u);
}

TEST_F(SafetensorsTest, MetadataAndPaddingAreAllowed) {
  EXPECT_EQ(RefusalOf(R"({"__metadata__":{"format":"pt"},)"
                      R"("t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}     )",
                      4),
            "accepted");
}

TEST_F(SafetensorsTest, NoMutationOfAValidFileCrashesOrReadsOutside) {
  const std::string valid = FileOf(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
      std::string(32, 'd'));
  Rng rng(20260101);
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string file = valid;
    for (uint64_t edits = 1 + rng.NextBelow(4); edits > 0; --edits) {
      const size_t at = rng.NextBelow(file.size());
      switch (rng.NextBelow(4)) {
        case 0:
          file[at] = static_cast<char>(rng.NextBelow(256));
          break;
        case 1:
          file.erase(at, 1 + rng.NextBelow(8));
          break;
        case 2:
          file.insert(at, 1, "{}[]\",:0129-e\\"[rng.NextBelow(14)]);
          break;
        default:
          file.resize(at + 1);
          break;
      }
    }
    const auto parsed = ParseSafetensorsHeader(AsBytes(file), "f");
    if (!parsed.ok()) {
      EXPECT_FALSE(parsed.status().message().empty());
      continue;
    }
    ++accepted;
    for (const TensorInfo& info : *parsed) {
      if (!info.usable.ok()) continue;
      ASSERT_LE(info.size_bytes, file.size());
      ASSERT_LE(info.file_offset, file.size() - info.size_bytes);
    }
  }
  // Changes to tensor bytes and names are invisible to the header, so some survive.
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace engram::io
