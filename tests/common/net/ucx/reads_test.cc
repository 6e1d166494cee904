// One-sided reads of the real transport, emulated over TCP: pieces, limits, damaged keys, peers
// that go away. Over RDMA: tests/rdma.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "common/base/rng.h"
#include "common/net/ucx/context.h"
#include "common/net/ucx/transport.h"
#include "tests/support/allocation_count.h"

namespace engram::net {
namespace {

constexpr auto kTestTimeout = std::chrono::seconds(20);
constexpr size_t kSharedBytes = 100'000;

struct Quiet : TransportHandler {
  void OnMessage(PeerId, std::span<const std::byte>, std::span<const std::byte>) override {}
  void OnPeerLost(PeerId peer, const Status&) override { lost.push_back(peer); }
  std::vector<PeerId> lost;
};

std::vector<std::byte> RandomBytes(size_t size) {
  Rng rng(3);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.NextU64());
  return bytes;
}

std::unique_ptr<Transport> MakeReading() {
  auto transport = MakeUcxTransport({.emulated_reads = true});
  CHECK(transport.ok()) << transport.status().ToString();
  return std::move(*transport);
}

struct UcxReading : testing::Test {
  UcxReading() : reader(MakeReading()), owner(MakeReading()) {
    reader->SetHandler(&at_reader);
    owner->SetHandler(&at_owner);
    peer = *reader->Connect(owner->address());
    (void)*owner->Connect(reader->address());
    key = *owner->ShareMemory(memory);
    buffer = *reader->AllocateSendBuffer(kSharedBytes);
  }

  template <typename Done>
  bool RunUntil(Done done) {
    const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
    while (!done()) {
      if (Clock::Real().Now() > deadline) return false;
      reader->Progress();
      if (owner != nullptr) owner->Progress();
    }
    return true;
  }

  std::vector<ReadPiece> RandomPieces(size_t count, uint32_t bytes) {
    std::vector<ReadPiece> pieces(count);
    for (size_t i = 0; i < count; ++i) {
      pieces[i] = {rng.NextU64() % (kSharedBytes - bytes), bytes, static_cast<uint32_t>(i * bytes)};
    }
    return pieces;
  }

  const std::vector<std::byte> memory = RandomBytes(kSharedBytes);
  Quiet at_reader, at_owner;
  std::unique_ptr<Transport> reader, owner;
  PeerId peer = 0;
  std::string key;
  std::unique_ptr<SendBuffer> buffer;
  Rng rng{9};
};

TEST_F(UcxReading, PiecesLandWhereTheyShouldAndNowhereElse) {
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  for (const uint32_t bytes : {264u, 1u, 3000u}) {
    std::memset(buffer->bytes().data(), 0x5a, kSharedBytes);
    auto pieces = RandomPieces(30, bytes);
    pieces.push_back({5, 0, 0});  // nothing to read
    for (ReadPiece& piece : pieces) piece.into_offset += 1;
    std::optional<Status> read;
    ASSERT_TRUE(reader->Read(peer, pieces, buffer.get(), [&](Status s) { read = s; }).ok());
    EXPECT_FALSE(read.has_value());
    const std::vector<ReadPiece> sent = pieces;
    pieces.assign(pieces.size(), {});  // they were copied
    ASSERT_TRUE(RunUntil([&] { return read.has_value(); }));
    ASSERT_TRUE(read->ok()) << read->ToString();
    for (const ReadPiece& piece : sent) {
      EXPECT_EQ(std::memcmp(buffer->bytes().data() + piece.into_offset,
                            memory.data() + piece.offset, piece.bytes),
                0);
    }
    EXPECT_EQ(buffer->bytes()[0], std::byte{0x5a});
    EXPECT_EQ(buffer->bytes()[1 + 30 * bytes], std::byte{0x5a});
  }
}

TEST_F(UcxReading, DoneMayStartTheNextRead) {
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  const auto pieces = RandomPieces(3, 264);
  int reads = 0;
  std::function<void(Status)> next = [&](const Status& status) {
    ASSERT_TRUE(status.ok()) << status.ToString();
    if (++reads == 50) return;
    ASSERT_TRUE(reader->Read(peer, pieces, buffer.get(), next).ok());
  };
  next(OkStatus());
  EXPECT_TRUE(RunUntil([&] { return reads == 50; }));
}

TEST_F(UcxReading, NothingIsAllocatedOnceWarm) {
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  const auto pieces = RandomPieces(200, 264);  // more than are under way at once
  int done = 0;
  const auto read_twice = [&] {
    const int goal = done + 2;
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(reader
                      ->Read(peer, pieces, buffer.get(),
                             [&done](const Status& s) {
                               CHECK(s.ok());
                               ++done;
                             })
                      .ok());
    }
    ASSERT_TRUE(RunUntil([&] { return done == goal; }));
  };
  read_twice();
  const uint64_t before = testing_support::AllocationCount();
  for (int i = 0; i < 10; ++i) read_twice();
  EXPECT_EQ(testing_support::AllocationCount(), before);
}

TEST_F(UcxReading, AReadOfNothingIsDone) {
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  std::optional<Status> read;
  ASSERT_TRUE(reader->Read(peer, {}, buffer.get(), [&](Status s) { read = s; }).ok());
  ASSERT_TRUE(RunUntil([&] { return read.has_value(); }));
  EXPECT_TRUE(read->ok());
}

TEST_F(UcxReading, PastTheEndUnopenedAndUnknownAreRefused) {
  const ReadPiece good{0, 8, 0};
  const auto read = [&](PeerId from, ReadPiece piece) {
    return reader->Read(from, {&piece, 1}, buffer.get(), [](const Status&) { FAIL(); }).code();
  };
  EXPECT_EQ(read(peer, good), Code::kUnavailable);
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  EXPECT_EQ(reader->OpenMemory(peer, key).code(), Code::kFailedPrecondition);
  EXPECT_EQ(read(peer + 1, good), Code::kUnavailable);
  EXPECT_EQ(read(peer, {kSharedBytes, 1, 0}), Code::kOutOfRange);
  EXPECT_EQ(read(peer, {kSharedBytes - 7, 8, 0}), Code::kOutOfRange);
  EXPECT_EQ(read(peer, {~uint64_t{0}, 8, 0}), Code::kOutOfRange);
  EXPECT_EQ(owner->ShareMemory(memory).status().code(), Code::kFailedPrecondition);
}

TEST_F(UcxReading, ReadsUnderWayAreBounded) {
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  const auto pieces = RandomPieces(2, 8);
  int accepted = 0;
  int done = 0;
  Status status;
  while (status.ok()) {
    status = reader->Read(peer, pieces, buffer.get(), [&](const Status&) { ++done; });
    accepted += status.ok() ? 1 : 0;
    ASSERT_LT(accepted, 1'000'000);
  }
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  reader->Disconnect(peer);
  EXPECT_TRUE(RunUntil([&] { return done == accepted; }));
}

TEST_F(UcxReading, DamagedKeysAreRefusedBeforeUcxSeesThem) {
  for (size_t i = 0; i < key.size(); ++i) {
    std::string bad = key;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    EXPECT_EQ(reader->OpenMemory(peer, bad).code(), Code::kInvalidArgument) << i;
    EXPECT_EQ(reader->OpenMemory(peer, key.substr(0, i)).code(), Code::kInvalidArgument) << i;
  }
}

TEST_F(UcxReading, GivingUpCancelsReadsOnceAndThenLeavesTheBufferAlone) {
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  const auto pieces = RandomPieces(300, 264);
  std::vector<Code> ended;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        reader
            ->Read(peer, pieces, buffer.get(), [&](const Status& s) { ended.push_back(s.code()); })
            .ok());
  }
  reader->Progress();
  reader->Disconnect(peer);
  ASSERT_TRUE(RunUntil([&] { return ended.size() == 3; }));
  EXPECT_EQ(ended, std::vector<Code>(3, Code::kCancelled));
  buffer.reset();
  for (int i = 0; i < 200; ++i) {
    reader->Progress();
    owner->Progress();
  }
  EXPECT_EQ(ended.size(), 3u);
  EXPECT_TRUE(at_reader.lost.empty());
}

TEST_F(UcxReading, ATransportDestroyedWithReadsUnderWayCallsNobody) {
  ASSERT_TRUE(reader->OpenMemory(peer, key).ok());
  const auto pieces = RandomPieces(300, 264);
  ASSERT_TRUE(reader->Read(peer, pieces, buffer.get(), [](const Status&) { FAIL(); }).ok());
  reader->Progress();
  buffer.reset();  // buffers die before their transport
  reader.reset();
}

// Shares memory, tells its parent, and serves until it is killed.
[[noreturn]] void RunOwner(int from_parent, int to_parent) {
  ::alarm(30);
  const auto memory = RandomBytes(kSharedBytes);
  const auto transport = MakeReading();
  Quiet handler;
  transport->SetHandler(&handler);
  for (const std::string& text : {transport->address(), *transport->ShareMemory(memory)}) {
    const uint32_t size = static_cast<uint32_t>(text.size());
    if (::write(to_parent, &size, sizeof(size)) < 0) ::_exit(1);
    if (::write(to_parent, text.data(), size) < 0) ::_exit(1);
  }
  char address[4096];
  const ssize_t size = ::read(from_parent, address, sizeof(address));
  if (size <= 0 || !transport->Connect({address, static_cast<size_t>(size)}).ok()) ::_exit(1);
  while (true) {
    if (transport->Progress() == 0) transport->Wait(std::chrono::milliseconds(100));
  }
}

std::string ReadText(int fd) {
  uint32_t size = 0;
  CHECK_EQ(::read(fd, &size, sizeof(size)), static_cast<ssize_t>(sizeof(size)));
  std::string text(size, 0);
  CHECK_EQ(::read(fd, text.data(), size), static_cast<ssize_t>(size));
  return text;
}

TEST(UcxReadingProcess, AKilledOwnersReadsFailAndThenItIsReported) {
  int to_child[2], to_parent[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(to_parent), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) RunOwner(to_child[0], to_parent[1]);
  const auto reader = MakeReading();
  Quiet handler;
  reader->SetHandler(&handler);
  const PeerId peer = *reader->Connect(ReadText(to_parent[0]));
  ASSERT_TRUE(reader->OpenMemory(peer, ReadText(to_parent[0])).ok());
  const std::string own = reader->address();
  ASSERT_EQ(::write(to_child[1], own.data(), own.size()), static_cast<ssize_t>(own.size()));
  const auto buffer = *reader->AllocateSendBuffer(4096);
  const ReadPiece piece{64, 264, 0};
  std::vector<Status> ended;
  const auto done = [&](Status status) {
    EXPECT_TRUE(handler.lost.empty());
    ended.push_back(std::move(status));
  };
  const auto run_until = [&](size_t count) {
    const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
    while (ended.size() < count && Clock::Real().Now() < deadline) {
      if (reader->Progress() == 0) reader->Wait(std::chrono::milliseconds(10));
    }
  };
  ASSERT_TRUE(reader->Read(peer, {&piece, 1}, buffer.get(), done).ok());
  run_until(1);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_TRUE(ended[0].ok()) << ended[0].ToString();
  ::kill(child, SIGSTOP);  // or it might still answer
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(reader->Read(peer, {&piece, 1}, buffer.get(), done).ok());
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  run_until(21);
  ASSERT_EQ(ended.size(), 21u);
  EXPECT_EQ(ended.back().code(), Code::kUnavailable) << ended.back().ToString();
  const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
  while (handler.lost.empty() && Clock::Real().Now() < deadline) reader->Progress();
  EXPECT_EQ(handler.lost, std::vector<PeerId>{peer});
  EXPECT_EQ(reader->Read(peer, {&piece, 1}, buffer.get(), done).code(), Code::kUnavailable);
  for (const int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) ::close(fd);
}

TEST(UcxTransport, OverTcpNothingIsOneSided) {
  const auto transport = MakeUcxTransport({});
  EXPECT_FALSE((*transport)->one_sided());
  EXPECT_FALSE(MakeReading()->one_sided());
  const auto memory = RandomBytes(64);
  EXPECT_EQ((*transport)->ShareMemory(memory).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ((*transport)->OpenMemory(1, "key").code(), Code::kFailedPrecondition);
}

TEST(UcxTransport, OneSidedAreRdmasReliableTransportsAlone) {
  for (const char* yes : {"rc", "rc_v,self", "self,rc_x", "dc,rc,self", "ib", "rc_verbs,ud_verbs",
                          "dc_mlx5,self", "rc_mlx5"}) {
    EXPECT_TRUE(TlsIsOneSided(yes)) << yes;
  }
  for (const char* no : {"", "tcp", "tcp,self", "self", "rc,tcp,self", "all", "^tcp", "ud,self",
                         "sm,self", "posix,cma", "rc_v,sm", "rcx", "r"}) {
    EXPECT_FALSE(TlsIsOneSided(no)) << no;
  }
}

TEST(UcxTransport, RdmaWithoutADeviceIsAClearError) {
  const auto transport = MakeUcxTransport({.tls = "rc_v,self"});
  if (transport.ok()) {
    EXPECT_TRUE((*transport)->one_sided());  // this machine has one
  } else {
    EXPECT_NE(transport.status().message().find("rc_v,self"), std::string::npos);
  }
}

}  // namespace
}  // namespace engram::net
