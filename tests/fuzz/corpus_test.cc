// The corpus' valid seeds are what the code writes today: a change of the wire without new seeds
// fails here. ENGRAM_WRITE_CORPUS=1 writes them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "common/checkpoint/safetensors.h"
#include "common/net/control/messages.h"
#include "common/net/tcp/challenge.h"
#include "common/net/tcp/link.h"
#include "common/net/wire.h"
#include "common/net/wire_encode.h"

namespace engram::net {
namespace {

using Seeds = std::map<std::string, std::string>;  // file name -> content

std::string TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// As tests/fuzz/wire_fuzz.cc reads it.
std::string WireInput(bool repair_crc, const std::string& header, const std::string& body) {
  const auto header_bytes = static_cast<uint16_t>(header.size());
  std::string input(1, repair_crc ? '\1' : '\0');
  input.append(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  return input + header + body;
}

std::string LookupInput(bool repair_crc, uint8_t id_bytes, std::vector<LookupLayer> layers) {
  size_t ids = 0;
  for (const LookupLayer& layer : layers) ids += layer.row_count;
  std::vector<std::byte> body(ids * id_bytes);
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<std::byte>(i);
  LookupHeader header;
  header.session = 0x1122334455667788;
  header.request_id = 9;
  header.epoch = 1;
  header.budget_us = 2'000'000;
  header.priority = 1;
  header.id_bytes = id_bytes;
  std::vector<std::byte> encoded;
  EncodeLookup(header, layers, body, encoded);
  return WireInput(repair_crc, TextOf(encoded), TextOf(body));
}

std::string RowsInput(bool repair_crc, uint32_t row_count, uint32_t stored_row_bytes) {
  RowsHeader header;
  header.request_id = 9;
  header.layer_index = 1;
  header.first = 480;
  header.row_count = row_count;
  header.stored_row_bytes = stored_row_bytes;
  Seal(header);
  return WireInput(repair_crc, TextOf(HeaderBytes(header)),
                   std::string(size_t{row_count} * stored_row_bytes, 'r'));
}

std::string ErrorInput(bool repair_crc, const std::string& text) {
  LookupErrorHeader header;
  header.request_id = 9;
  header.code = static_cast<int32_t>(Code::kOutOfRange);
  Seal(header, std::as_bytes(std::span(text)));
  return WireInput(repair_crc, TextOf(HeaderBytes(header)), text);
}

Seeds WireSeeds() {
  Seeds seeds;
  for (const bool repair : {false, true}) {
    const std::string suffix = repair ? "-repaired" : "";
    seeds["lookup-u32" + suffix] = LookupInput(repair, 4, {{0, 3, 5}, {1, 2, 5}});
    seeds["lookup-u64" + suffix] = LookupInput(repair, 8, {{7, 1, 0}});
    seeds["rows" + suffix] = RowsInput(repair, 2, 36);
    seeds["error" + suffix] = ErrorInput(repair, "row 99 of 50");
  }
  std::vector<LookupLayer> many;
  for (uint32_t i = 0; i < kLookupLayersMax; ++i) many.push_back({i, 1, i});
  seeds["lookup-all-layers-repaired"] = LookupInput(true, 4, many);
  seeds["error-without-text"] = ErrorInput(false, "");
  return seeds;
}

table::TableIdentity SmallIdentity() {
  table::TableIdentity identity;
  identity.model = "tiny-7";
  identity.version = "1";
  identity.max_ngram_size = 3;
  identity.heads_per_order = 1;
  identity.head_dim = 256;
  identity.row_encoding = table::RowEncodingName(table::RowEncoding::kFp8Scaled);
  identity.compressed_vocab_size = 100;
  identity.pad_compressed = 2;
  identity.layers.push_back({1, 2010, {3, 5, 7}, {1009, 1001}});
  identity.content_digest = std::string(64, 'd');
  return identity;
}

std::string TextInFrame(const std::string& frame) { return frame.substr(kFramePrefixBytes); }

Seeds ControlSeeds() {
  Hello hello;
  hello.identity = SmallIdentity();
  hello.transport = "tcp";
  hello.settings = "a=1";
  hello.address = std::string("\x01\xff", 2);
  Welcome welcome;
  welcome.member = "m0";
  welcome.map.members = {"m0", "m1"};
  welcome.identity = hello.identity;
  welcome.session = 0xfedcba9876543210;
  welcome.known_answers.push_back({0, 17, std::string(64, 'a')});
  Seeds seeds;
  seeds["hello"] = TextInFrame(HelloFrame(hello));
  seeds["welcome-least"] = TextInFrame(WelcomeFrame(welcome));
  welcome.transport = "tcp";
  welcome.window = 32;
  welcome.local_socket = "engram-7";
  welcome.local_token = "12345678";
  welcome.one_sided_key = "key";
  welcome.generation = 0xfedcba9876543210;
  seeds["welcome-all"] = TextInFrame(WelcomeFrame(welcome));
  seeds["refused"] = TextInFrame(RefusedFrame(FailedPrecondition("another model")));
  seeds["frame"] = RefusedFrame(Unavailable("draining"));
  seeds["admin"] = TextInFrame(
      AdminFrame({{"command", "prepare"}, {"name", "a"}, {"version", "2"}, {"generation", "3"}}));
  seeds["reply"] = TextInFrame(ReplyFrame({{"job", "1"}, {"versions", json::array{1, "2"}}}));
  return seeds;
}

// As tests/fuzz/challenge_fuzz.cc reads it: mode 0 faces an acceptor, 1 a dialer, 2 is noise on
// messages of the given sizes between two of ours.
Seeds ChallengeSeeds() {
  constexpr EndpointId kDialerId = {1, 2, 3};
  constexpr EndpointId kAcceptorId = {4, 5, 6};
  Challenge dialer = Challenge::Dial(ChallengePurpose::kData, "", "", kDialerId, kAcceptorId);
  std::string opening = dialer.TakeOutput();
  constexpr size_t kNonceAt = 8;
  opening.replace(kNonceAt, 32, 32, 'n');  // no two are alike
  const std::string prefix = opening.substr(0, kNonceAt);
  Seeds seeds;
  seeds["opening"] = std::string(1, '\0') + opening;
  seeds["opening-and-proof"] = seeds["opening"] + std::string(32, 'p');
  seeds["answer"] = "\1" + prefix + std::string(32, 'n') + std::string("\4\5\6", 3) +
                    std::string(13, '\0') + prefix + std::string(32, 'p');
  seeds["undisturbed"] = "\2";
  seeds["last-proof-changed"] = "\2" + std::string(opening.size() + 56 + 32 + 39, '\0') + "\1";
  return seeds;
}

// As tests/fuzz/tcp_link_fuzz.cc reads it: a byte that cuts the stream, then frames.
std::string FrameOf(const std::string& header, const std::string& body, uint32_t added = 0) {
  const auto header_bytes = static_cast<uint32_t>(header.size());
  const auto body_bytes = static_cast<uint32_t>(body.size());
  const FramePrefix prefix = {FrameMark(header_bytes, body_bytes) + added, header_bytes,
                              body_bytes};
  return TextOf(std::as_bytes(std::span(&prefix, 1))) + header + body;
}

Seeds TcpLinkSeeds() {
  const std::string frame = FrameOf("a header", "and a body");
  const std::string empty = FrameOf("", "");
  Seeds seeds;
  seeds["two-frames-at-once"] = "\xff" + frame + frame;
  seeds["byte-by-byte"] = std::string(1, '\0') + frame + empty + frame;
  seeds["frame-cut-short"] = "\1" + frame + frame.substr(0, frame.size() - 3);
  seeds["other-magic"] = "\1" + frame + FrameOf("x", "y", 1);
  std::string long_frame = frame;
  long_frame[7] = '\x7f';  // header_bytes in the 2^24s
  seeds["frame-too-long"] = "\1" + frame + long_frame;
  return seeds;
}

std::string FileText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// As tests/fuzz/safetensors_fuzz.cc reads it.
Seeds SafetensorsSeeds() {
  const std::string folder = testing::TempDir() + "fuzz_corpus_safetensors";
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/model.safetensors";
  auto writer = io::SafetensorsWriter::Create(
      path, {{"layers.1.engram.q_weight", DType::kF32, {2, 3}},
             {"layers.1.engram.embed.weight", DType::kF8E4m3, {4, 32}},
             {"layers.1.engram.embed.scale", DType::kF8E8m0, {4, 1}},
             {"norm.weight", DType::kBf16, {}},
             {"none", DType::kI64, {0, 7}}});
  const std::vector<std::byte> data(24 + 128 + 4 + 2);
  CHECK(writer.ok() && writer->Append(data).ok() && writer->Finish().ok());
  CHECK(io::WriteSafetensorsIndex(
            folder,
            {{"a", "model-00001-of-00002.safetensors"}, {"b", "model-00002-of-00002.safetensors"}},
            158)
            .ok());
  const std::string file = FileText(path);
  const std::string index = FileText(folder + "/model.safetensors.index.json");
  std::filesystem::remove_all(folder);
  const std::string header = file.substr(8, file.size() - 8 - data.size());
  Seeds seeds;
  seeds["file"] = "f" + file;
  seeds["file-cut-short"] = "f" + file.substr(0, file.size() - 1);
  seeds["header"] = "h" + std::string("\x9e\0", 2) + header;
  seeds["header-of-nothing"] = "h" + std::string(2, '\0') + R"({"__metadata__":{"format":"pt"}})";
  seeds["index"] = "i" + index;
  return seeds;
}

void CompareWithFiles(const std::string& target, const Seeds& seeds) {
  const std::filesystem::path folder =
      std::filesystem::path(ENGRAM_SOURCE_DIR) / "tests/fuzz/corpus" / target;
  for (const auto& [name, content] : seeds) {
    if (std::getenv("ENGRAM_WRITE_CORPUS") != nullptr) {
      std::ofstream(folder / name, std::ios::binary) << content;
    }
    std::ifstream in(folder / name, std::ios::binary);
    const std::string found(std::istreambuf_iterator<char>(in), {});
    EXPECT_TRUE(found == content) << target << "/" << name
                                  << " is not what is written today; ENGRAM_WRITE_CORPUS=1 "
                                     "writes it";
  }
}

TEST(FuzzCorpus, WireSeedsAreWhatIsWrittenToday) { CompareWithFiles("wire", WireSeeds()); }

TEST(FuzzCorpus, ControlSeedsAreWhatIsWrittenToday) { CompareWithFiles("control", ControlSeeds()); }

TEST(FuzzCorpus, ChallengeSeedsAreWhatIsWrittenToday) {
  CompareWithFiles("challenge", ChallengeSeeds());
}

TEST(FuzzCorpus, TcpLinkSeedsAreWhatIsWrittenToday) {
  CompareWithFiles("tcp_link", TcpLinkSeeds());
}

TEST(FuzzCorpus, SafetensorsSeedsAreWhatIsWrittenToday) {
  CompareWithFiles("safetensors", SafetensorsSeeds());
}

TEST(FuzzCorpus, ValidSeedsAreAccepted) {
  Seeds seeds = SafetensorsSeeds();
  EXPECT_TRUE(io::ParseSafetensorsIndex(seeds["index"].substr(1), "seed").ok());
  const std::string file = seeds["file"].substr(1);
  EXPECT_TRUE(io::ParseSafetensorsHeader(std::as_bytes(std::span(file)), "seed").ok());

  for (const auto& [name, input] : WireSeeds()) {
    uint16_t header_bytes = 0;
    std::memcpy(&header_bytes, input.data() + 1, sizeof(header_bytes));
    const auto all = std::as_bytes(std::span(input)).subspan(3);
    const auto header = all.first(header_bytes);
    const auto body = all.subspan(header_bytes);
    EXPECT_TRUE(ParseLookup(header, body).ok() || ParseRows(header, body).ok() ||
                ParseLookupError(header, body).ok())
        << name;
  }
  for (const auto& [name, input] : ControlSeeds()) {
    const bool expected = name != "frame" && name != "refused";
    EXPECT_EQ(ParseHello(input).ok() || ParseAnswer(input).ok() || ParseAdmin(input).has_value() ||
                  ParseReply(input).ok(),
              expected)
        << name;
  }
}

}  // namespace
}  // namespace engram::net
