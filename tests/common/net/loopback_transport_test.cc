// The fake transport keeps the Transport contract, and each of its faults does what it says.
#include "tests/support/fakes/loopback_transport.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

namespace engram::net {
namespace {

std::vector<std::byte> ToBytes(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

std::string ToText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Recorder : TransportHandler {
  void OnMessage(PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override {
    last_from = from;
    messages.push_back(ToText(header) + "|" + ToText(body));
  }
  void OnPeerLost(PeerId peer, const Status&) override { lost.push_back(peer); }
  PeerId last_from = 0;
  std::vector<std::string> messages;
  std::vector<PeerId> lost;
};

struct Pair : testing::Test {
  Pair() : a(hub.MakeTransport()), b(hub.MakeTransport()) {
    a->SetHandler(&at_a);
    b->SetHandler(&at_b);
    a_to_b = *a->Connect(b->address());
    b_to_a = *b->Connect(a->address());
    buffer = *a->AllocateSendBuffer(64);
  }

  Status Send(std::string_view header, std::string_view body) {
    std::memcpy(buffer->bytes().data(), body.data(), body.size());
    return a->Send(a_to_b, ToBytes(header), buffer.get(), body.size(),
                   [this](const Status& status) { completions.push_back(status.code()); });
  }

  LoopbackHub hub;
  Recorder at_a, at_b;
  std::unique_ptr<Transport> a, b;
  PeerId a_to_b = 0, b_to_a = 0;
  std::unique_ptr<SendBuffer> buffer;
  std::vector<Code> completions;
};

TEST_F(Pair, MessagesArriveInOrderWithTheirSender) {
  ASSERT_TRUE(Send("one", "1").ok());
  ASSERT_TRUE(Send("two", "").ok());
  EXPECT_EQ(b->Progress(), 2);
  EXPECT_EQ(at_b.messages, (std::vector<std::string>{"one|1", "two|"}));
  EXPECT_EQ(at_b.last_from, b_to_a);
  a->Progress();
  EXPECT_EQ(completions, (std::vector<Code>{Code::kOk, Code::kOk}));
  EXPECT_EQ(b->Progress(), 0);
}

TEST_F(Pair, OversizedAndUnknownAreRefused) {
  const std::vector<std::byte> header(kHeaderBytesMax + 1);
  EXPECT_EQ(a->Send(a_to_b, header, nullptr, 0, {}).code(), Code::kResourceExhausted);
  EXPECT_EQ(a->Send(a_to_b + 7, {}, nullptr, 0, {}).code(), Code::kUnavailable);
  EXPECT_EQ(a->Connect("nowhere").status().code(), Code::kUnavailable);
}

TEST_F(Pair, DroppedMessagesVanishAndTheNextArrives) {
  hub.DropNext(a->address(), 1);
  ASSERT_TRUE(Send("one", "1").ok());
  ASSERT_TRUE(Send("two", "2").ok());
  b->Progress();
  EXPECT_EQ(at_b.messages, (std::vector<std::string>{"two|2"}));
}

TEST_F(Pair, CorruptionChangesTheBodyOnly) {
  hub.CorruptNext(a->address(), 1);
  ASSERT_TRUE(Send("head", "abc").ok());
  b->Progress();
  ASSERT_EQ(at_b.messages.size(), 1u);
  EXPECT_EQ(at_b.messages[0].substr(0, 5), "head|");
  EXPECT_NE(at_b.messages[0], "head|abc");
}

TEST_F(Pair, DuplicatedMessagesArriveTwice) {
  hub.DuplicateNext(a->address(), 1);
  ASSERT_TRUE(Send("one", "1").ok());
  b->Progress();
  EXPECT_EQ(at_b.messages, (std::vector<std::string>{"one|1", "one|1"}));
}

TEST_F(Pair, HeldMessagesWaitForRelease) {
  hub.Hold(a->address());
  ASSERT_TRUE(Send("one", "1").ok());
  EXPECT_EQ(b->Progress(), 0);
  EXPECT_EQ(hub.HeldCount(a->address()), 1u);
  hub.Release(a->address());
  b->Progress();
  EXPECT_EQ(at_b.messages, (std::vector<std::string>{"one|1"}));
}

TEST_F(Pair, KilledPeerIsReportedOnceAfterItsMessages) {
  ASSERT_TRUE(Send("last words", "").ok());
  hub.Kill(a->address());
  hub.Kill(a->address());
  b->Progress();
  EXPECT_EQ(at_b.messages.size(), 1u);
  EXPECT_EQ(at_b.lost, (std::vector<PeerId>{b_to_a}));
  EXPECT_EQ(b->Send(b_to_a, {}, nullptr, 0, {}).code(), Code::kUnavailable);
}

TEST_F(Pair, StoppedPeerAnswersNothingAndIsNotReported) {
  hub.Stop(b->address());
  ASSERT_TRUE(Send("one", "1").ok());
  EXPECT_EQ(b->Progress(), 0);
  a->Progress();
  EXPECT_TRUE(at_a.lost.empty());
  hub.Resume(b->address());
  EXPECT_EQ(b->Progress(), 1);
}

TEST_F(Pair, DisconnectCancelsSendsAndTellsThePeer) {
  ASSERT_TRUE(Send("one", "1").ok());
  a->Disconnect(a_to_b);
  a->Progress();
  EXPECT_EQ(completions, (std::vector<Code>{Code::kCancelled}));
  b->Progress();
  EXPECT_EQ(at_b.lost, (std::vector<PeerId>{b_to_a}));
}

// b lets a read its memory.
struct Reading : Pair {
  Reading() : memory(ToBytes("0123456789abcdef")) {
    hub.SetOneSided(true);
    key = *b->ShareMemory(memory);
    CHECK(a->OpenMemory(a_to_b, key).ok());
  }
  ~Reading() override { b.reset(); }  // before the memory it shares
  Status Read(std::vector<ReadPiece> pieces) {
    return a->Read(a_to_b, pieces, buffer.get(),
                   [this](const Status& status) { completions.push_back(status.code()); });
  }
  std::string Got(size_t bytes) { return ToText(buffer->bytes().first(bytes)); }
  std::vector<std::byte> memory;
  std::string key;
};

TEST_F(Pair, WithoutOneSidedReadsTheCallsSaySo) {
  EXPECT_FALSE(a->one_sided());
  EXPECT_EQ(b->ShareMemory(ToBytes("x")).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(a->OpenMemory(a_to_b, "key").code(), Code::kFailedPrecondition);
  EXPECT_EQ(a->Read(a_to_b, {}, buffer.get(), {}).code(), Code::kFailedPrecondition);
}

TEST_F(Reading, PiecesLandWhereTheyShouldWithoutTheOwnersProgress) {
  EXPECT_TRUE(a->one_sided());
  ASSERT_TRUE(Read({{10, 3, 4}, {0, 4, 0}}).ok());
  EXPECT_TRUE(completions.empty());
  EXPECT_EQ(a->Progress(), 1);
  EXPECT_EQ(completions, (std::vector<Code>{Code::kOk}));
  EXPECT_EQ(Got(7), "0123abc");
}

TEST_F(Reading, AStoppedOwnerIsRead) {
  hub.Stop(b->address());
  ASSERT_TRUE(Read({{1, 2, 0}}).ok());
  a->Progress();
  EXPECT_EQ(completions, (std::vector<Code>{Code::kOk}));
  EXPECT_EQ(Got(2), "12");
}

TEST_F(Reading, AKilledOwnersReadsFail) {
  ASSERT_TRUE(Read({{1, 2, 0}}).ok());
  hub.Kill(b->address());
  a->Progress();
  EXPECT_EQ(completions, (std::vector<Code>{Code::kUnavailable}));
  EXPECT_EQ(at_a.lost, (std::vector<PeerId>{a_to_b}));
  EXPECT_EQ(Got(2), std::string(2, '\0'));
  EXPECT_EQ(Read({{1, 2, 0}}).code(), Code::kUnavailable);
}

TEST_F(Reading, DisconnectCancelsReads) {
  ASSERT_TRUE(Read({{1, 2, 0}}).ok());
  a->Disconnect(a_to_b);
  a->Progress();
  EXPECT_EQ(completions, (std::vector<Code>{Code::kCancelled}));
  EXPECT_EQ(Got(2), std::string(2, '\0'));
}

TEST_F(Reading, PastTheEndAndUnopenedAreRefused) {
  EXPECT_EQ(Read({{0, 1, 0}, {16, 1, 0}}).code(), Code::kOutOfRange);
  EXPECT_EQ(Read({{~uint64_t{0}, 1, 0}}).code(), Code::kOutOfRange);
  EXPECT_EQ(b->Read(b_to_a, {}, buffer.get(), {}).code(), Code::kUnavailable);
  EXPECT_EQ(b->OpenMemory(b_to_a, key).code(), Code::kInvalidArgument);
  EXPECT_EQ(a->OpenMemory(a_to_b, key).code(), Code::kFailedPrecondition);
  EXPECT_EQ(b->ShareMemory(memory).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(a->Progress(), 0);
}

TEST_F(Reading, CorruptedReadsDifferInOneBit) {
  hub.CorruptNextReads(b->address(), 1);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Read({{0, 16, static_cast<uint32_t>(i) * 16}}).ok());
  a->Progress();
  EXPECT_EQ(Got(16), "01234567(9abcdef");  // '8' with bit 4 flipped
  EXPECT_EQ(Got(32).substr(16), "0123456789abcdef");
}

TEST_F(Pair, WakeUpEndsAWait) {
  std::atomic<bool> returned = false;
  std::thread waiter([&] {
    a->Wait(std::chrono::minutes(1));
    returned = true;
  });
  a->WakeUp();
  waiter.join();
  EXPECT_TRUE(returned);
}

TEST_F(Pair, TwoThreadsExchangeManyMessages) {
  constexpr int kMessages = 2000;
  std::thread receiver([&] {
    while (at_b.messages.size() < kMessages) {
      if (b->Progress() == 0) b->Wait(std::chrono::milliseconds(50));
    }
  });
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_TRUE(Send(std::to_string(i), "x").ok());
    a->Progress();
  }
  receiver.join();
  EXPECT_EQ(at_b.messages.back(), "1999|x");
  EXPECT_EQ(completions.size(), size_t{kMessages});
}

}  // namespace
}  // namespace engram::net
