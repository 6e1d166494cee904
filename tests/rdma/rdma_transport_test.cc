// The real transport over RDMA between two processes: messages both ways, one-sided reads that need
// nothing of the owner, and an owner that dies. Run inside the virtual machine of run_in_vm.sh.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "common/base/buffer.h"
#include "common/base/rng.h"
#include "common/net/ucx/transport.h"

namespace engram::net {
namespace {

constexpr auto kTestTimeout = std::chrono::seconds(30);
// Half a second on an idle host; UCX's own settings take 8 s, or for ever with SoftRoCE.
constexpr std::chrono::milliseconds kNoticedWithin{3000};
constexpr size_t kSharedBytes = 2 << 20;
constexpr uint32_t kRowBytes = 264;

std::unique_ptr<Transport> MakeRdmaTransport() {
  auto transport = MakeUcxTransport({.tls = "rc_v,self"});
  CHECK(transport.ok()) << transport.status().ToString();
  return std::move(*transport);
}

AlignedBuffer MakeRows() {
  AlignedBuffer rows = *AlignedBuffer::Allocate(kSharedBytes, PageBacking::kSmall);
  Rng rng(11);
  for (size_t i = 0; i < kSharedBytes; i += sizeof(uint64_t)) {
    const uint64_t word = rng.NextU64();
    std::memcpy(rows.data() + i, &word, sizeof(word));
  }
  return rows;
}

void WriteAll(int fd, const std::string& text) {
  const uint64_t size = text.size();
  CHECK_EQ(::write(fd, &size, sizeof(size)), static_cast<ssize_t>(sizeof(size)));
  CHECK_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

std::string ReadAll(int fd) {
  uint64_t size = 0;
  CHECK_EQ(::read(fd, &size, sizeof(size)), static_cast<ssize_t>(sizeof(size)));
  std::string text(size, 0);
  size_t got = 0;
  while (got < size) {
    const ssize_t count = ::read(fd, text.data() + got, size - got);
    CHECK_GT(count, 0);
    got += static_cast<size_t>(count);
  }
  return text;
}

struct Recorder : TransportHandler {
  void OnMessage(PeerId, std::span<const std::byte> header,
                 std::span<const std::byte> body) override {
    last_header.assign(header.begin(), header.end());
    last_body.assign(body.begin(), body.end());
    ++messages;
  }
  void OnPeerLost(PeerId peer, const Status& why) override { lost.emplace_back(peer, why); }
  int messages = 0;
  std::vector<std::byte> last_header, last_body;
  std::vector<std::pair<PeerId, Status>> lost;
};

// The owner: answers a ReadPiece with the bytes it names, and lets them be read. Until killed.
struct Owner : TransportHandler {
  explicit Owner(Transport& t) : transport(t), rows(MakeRows()) {}
  void OnMessage(PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte>) override {
    ReadPiece piece;
    CHECK_EQ(header.size(), sizeof(piece));
    std::memcpy(&piece, header.data(), sizeof(piece));
    std::memcpy(reply->bytes().data(), rows.data() + piece.offset, piece.bytes);
    CHECK(transport.Send(from, header, reply.get(), piece.bytes, {}).ok());
  }
  void OnPeerLost(PeerId, const Status&) override {}
  Transport& transport;
  AlignedBuffer rows;
  std::unique_ptr<SendBuffer> reply;
};

[[noreturn]] void RunOwner(int from_reader, int to_reader) {
  ::alarm(120);
  const auto transport = MakeRdmaTransport();
  Owner owner(*transport);
  transport->SetHandler(&owner);
  owner.reply = *transport->AllocateSendBuffer(kBodyBytesMax);
  const auto key = transport->ShareMemory(std::as_const(owner.rows).bytes());
  CHECK(key.ok()) << key.status().ToString();
  WriteAll(to_reader, transport->address());
  WriteAll(to_reader, *key);
  CHECK(transport->Connect(ReadAll(from_reader)).ok());
  while (true) {
    if (transport->Progress() == 0) transport->Wait(std::chrono::milliseconds(100));
  }
}

struct RdmaTransport : testing::Test {
  void SetUp() override {
    ASSERT_EQ(::pipe(to_owner), 0);
    ASSERT_EQ(::pipe(to_reader), 0);
    owner = ::fork();
    ASSERT_GE(owner, 0);
    if (owner == 0) RunOwner(to_owner[0], to_reader[1]);
    transport = MakeRdmaTransport();
    transport->SetHandler(&recorder);
    buffer = *transport->AllocateSendBuffer(1 << 20);
    const auto connected = transport->Connect(ReadAll(to_reader[0]));
    ASSERT_TRUE(connected.ok()) << connected.status().ToString();
    peer = *connected;
    const Status opened = transport->OpenMemory(peer, ReadAll(to_reader[0]));
    ASSERT_TRUE(opened.ok()) << opened.ToString();
    WriteAll(to_owner[1], transport->address());
  }

  void TearDown() override {
    if (owner > 0) KillOwner();
    buffer.reset();
    transport.reset();
    for (const int fd : {to_owner[0], to_owner[1], to_reader[0], to_reader[1]}) ::close(fd);
  }

  void KillOwner() {
    ::kill(owner, SIGKILL);
    ::waitpid(owner, nullptr, 0);
    owner = 0;
  }

  template <typename Done>
  bool RunUntil(Done done) {
    const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
    while (!done()) {
      if (Clock::Real().Now() > deadline) return false;
      if (transport->Progress() == 0) transport->Wait(std::chrono::milliseconds(5));
    }
    return true;
  }

  Status Read(std::span<const ReadPiece> pieces) {
    std::optional<Status> read;
    RETURN_IF_ERROR(transport->Read(peer, pieces, buffer.get(),
                                    [&](Status status) { read = std::move(status); }));
    if (!RunUntil([&] { return read.has_value(); })) return DeadlineExceeded("a read never ended");
    return *read;
  }

  // By messages: what the owner answers.
  std::vector<std::byte> Ask(const ReadPiece& piece) {
    const int before = recorder.messages;
    CHECK(transport->Send(peer, std::as_bytes(std::span(&piece, 1)), nullptr, 0, {}).ok());
    if (!RunUntil([&] { return recorder.messages > before; })) return {};
    return recorder.last_body;
  }

  std::vector<ReadPiece> RandomRows(size_t count) {
    std::vector<ReadPiece> pieces(count);
    for (size_t i = 0; i < count; ++i) {
      pieces[i] = {rng.NextU64() % (kSharedBytes / kRowBytes) * kRowBytes, kRowBytes,
                   static_cast<uint32_t>(i * kRowBytes)};
    }
    return pieces;
  }

  void ExpectRowsInBuffer(std::span<const ReadPiece> pieces) {
    for (const ReadPiece& piece : pieces) {
      ASSERT_EQ(std::memcmp(buffer->bytes().data() + piece.into_offset, rows.data() + piece.offset,
                            piece.bytes),
                0)
          << "at " << piece.offset;
    }
  }

  int to_owner[2], to_reader[2];
  pid_t owner = 0;
  Recorder recorder;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<SendBuffer> buffer;
  PeerId peer = 0;
  const AlignedBuffer rows = MakeRows();
  Rng rng{5};
};

TEST_F(RdmaTransport, ReadsAgreeByteForByteWithWhatMessagesBring) {
  EXPECT_TRUE(transport->one_sided());
  EXPECT_FALSE((*MakeUcxTransport({}))->one_sided());
  for (const uint32_t bytes : {1u, 8u, 264u, 4096u, 100'003u, 131'072u}) {
    for (int i = 0; i < 4; ++i) {
      const ReadPiece piece{rng.NextU64() % (kSharedBytes - bytes), bytes, 17};
      const std::vector<std::byte> answered = Ask(piece);
      ASSERT_EQ(answered.size(), bytes);
      const Status read = Read({&piece, 1});
      ASSERT_TRUE(read.ok()) << read.ToString();
      EXPECT_EQ(std::memcmp(buffer->bytes().data() + 17, answered.data(), bytes), 0);
      ExpectRowsInBuffer({&piece, 1});
    }
  }
}

TEST_F(RdmaTransport, ManyRowsAreReadAtOnce) {
  for (int round = 0; round < 3; ++round) {
    const auto pieces = RandomRows(1500);
    const Status read = Read(pieces);
    ASSERT_TRUE(read.ok()) << read.ToString();
    ExpectRowsInBuffer(pieces);
  }
}

TEST_F(RdmaTransport, AStoppedOwnersMemoryIsStillRead) {
  ASSERT_EQ(Ask({0, 264, 0}).size(), 264u);
  ASSERT_EQ(::kill(owner, SIGSTOP), 0);
  int state = 0;
  ASSERT_EQ(::waitpid(owner, &state, WUNTRACED), owner);
  ASSERT_TRUE(WIFSTOPPED(state));
  for (int round = 0; round < 20; ++round) {
    const auto pieces = RandomRows(100);
    const Status read = Read(pieces);
    ASSERT_TRUE(read.ok()) << read.ToString();
    ExpectRowsInBuffer(pieces);
  }
  EXPECT_TRUE(recorder.lost.empty());
}

TEST_F(RdmaTransport, AKilledOwnersReadsSoonEndWithAnError) {
  ASSERT_EQ(Ask({0, 264, 0}).size(), 264u);
  const auto pieces = RandomRows(3500);
  int ended = 0;
  Status last;
  const auto done = [&](Status status) {
    ++ended;
    last = std::move(status);
  };
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(transport->Read(peer, pieces, buffer.get(), done).ok());
  KillOwner();
  const TimePoint killed = Clock::Real().Now();
  ASSERT_TRUE(RunUntil([&] { return ended == 4; }));
  const auto took = Clock::Real().Now() - killed;
  EXPECT_EQ(last.code(), Code::kUnavailable) << last.ToString();
  ASSERT_TRUE(RunUntil([&] { return !recorder.lost.empty(); }));
  EXPECT_EQ(recorder.lost[0].first, peer);
  EXPECT_EQ(transport->Read(peer, pieces, buffer.get(), {}).code(), Code::kUnavailable);
  const auto took_ms = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
  std::printf("the reads of a killed owner ended after %ld ms: %s\n", static_cast<long>(took_ms),
              last.ToString().c_str());
  EXPECT_LT(took_ms, kNoticedWithin.count());
}

TEST_F(RdmaTransport, AReaderThatGivesUpGetsItsReadsBackCancelled) {
  ASSERT_EQ(Ask({0, 264, 0}).size(), 264u);
  const auto pieces = RandomRows(3500);
  std::optional<Status> read;
  ASSERT_TRUE(
      transport->Read(peer, pieces, buffer.get(), [&](Status status) { read = status; }).ok());
  transport->Disconnect(peer);
  ASSERT_TRUE(RunUntil([&] { return read.has_value(); }));
  EXPECT_EQ(read->code(), Code::kCancelled);
  EXPECT_TRUE(recorder.lost.empty());
}

TEST_F(RdmaTransport, ReadsPastTheEndAreRefusedBeforeTheyStart) {
  for (const ReadPiece& piece : {ReadPiece{kSharedBytes, 1, 0}, ReadPiece{kSharedBytes - 7, 8, 0},
                                 ReadPiece{~uint64_t{0}, 2, 0}}) {
    EXPECT_EQ(transport->Read(peer, {&piece, 1}, buffer.get(), {}).code(), Code::kOutOfRange);
  }
  const ReadPiece last{kSharedBytes - 8, 8, 0};
  EXPECT_TRUE(Read({&last, 1}).ok());
}

}  // namespace
}  // namespace engram::net
