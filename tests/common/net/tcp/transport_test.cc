// The framed TCP transport between two ends that are both well: the same behaviours without TLS,
// with TLS, and with TLS that checks certificates.
#include "common/net/tcp/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "tests/common/net/tcp/harness.h"
#include "tests/support/allocation_count.h"

namespace engram::net {
namespace {

using testing::HasSubstr;

class TcpTransport : public testing::TestWithParam<std::string> {
 protected:
  static std::shared_ptr<const Security> Secure() {
    if (GetParam() == "Plain") return {};
    return TlsSecurity(GetParam() == "MutualTls");
  }
};

INSTANTIATE_TEST_SUITE_P(, TcpTransport, testing::Values("Plain", "Tls", "MutualTls"),
                         [](const auto& kind) { return kind.param; });

TEST_P(TcpTransport, MessagesOfEverySizeArriveUnchangedBothWays) {
  Pair pair(Secure());
  Rng rng(7);
  const size_t body_sizes[] = {
      0, 1, 1023, 16'384, 16'385, 131'072, kBodyBytesMax - 1, kBodyBytesMax};
  const size_t header_sizes[] = {0, 1, 40, kHeaderBytesMax};
  auto buffer = *pair.acceptor->AllocateSendBuffer(kBodyBytesMax);
  for (uint32_t i = 0; i < 64; ++i) {
    const bool forth = i % 2 == 0;
    const auto header = RandomBytes(rng, header_sizes[i / 2 % 4]);
    const auto body = RandomBytes(rng, body_sizes[i / 8]);
    std::copy(body.begin(), body.end(), buffer->bytes().begin());
    End& sender = forth ? pair.acceptor : pair.dialer;
    End& receiver = forth ? pair.dialer : pair.acceptor;
    int done = 0;
    ASSERT_TRUE(sender
                    ->Send(forth ? pair.to_dialer : pair.to_acceptor, header,
                           body.empty() ? nullptr : buffer.get(), body.size(),
                           [&](const Status& status) { done += status.ok() ? 1 : 100; })
                    .ok());
    ASSERT_TRUE(pair.Run([&] { return done > 0 && !receiver.told.messages.empty(); }));
    EXPECT_EQ(done, 1);
    const Recorder::Message message = std::move(receiver.told.messages.front());
    receiver.told.messages.pop_front();
    EXPECT_EQ(message.from, forth ? pair.to_acceptor : pair.to_dialer);
    ASSERT_EQ(message.header, header);
    ASSERT_EQ(message.body, body);
  }
}

TEST_P(TcpTransport, MessagesHeldBackForTheNextArriveBeforeItAndAlone) {
  Pair pair(Secure());
  auto buffer = *pair.acceptor->AllocateSendBuffer(50'000);
  uint64_t sent = 0, done = 0;
  const auto count = [&](const Status& status) { done += status.ok(); };
  for (const size_t body_bytes : {0u, 1u, 1400u, 50'000u}) {
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(
          pair.acceptor
              ->SendMore(pair.to_dialer, NumberedHeader(sent++), buffer.get(), body_bytes, count)
              .ok());
    }
    ASSERT_TRUE(
        pair.acceptor->Send(pair.to_dialer, NumberedHeader(sent++), buffer.get(), 10, count).ok());
    ASSERT_TRUE(pair.Run([&] { return pair.dialer.told.messages.size() == sent && done == sent; }));
  }
  // Without a next one it is late, not lost.
  ASSERT_TRUE(
      pair.acceptor->SendMore(pair.to_dialer, NumberedHeader(sent++), nullptr, 0, count).ok());
  ASSERT_TRUE(pair.Run([&] { return pair.dialer.told.messages.size() == sent && done == sent; }));
  for (uint64_t i = 0; i < sent; ++i) {
    EXPECT_EQ(NumberOf(pair.dialer.told.messages[i].header), i);
  }
}

// Both sockets are full at once, so that writes stop in the middle of frames and TLS records.
TEST_P(TcpTransport, AFloodInBothDirectionsArrivesWholeAndInOrder) {
  constexpr uint64_t kMessages = 400;
  Pair pair(Secure());
  struct Side {
    End* end;
    PeerId to;
    std::vector<std::unique_ptr<SendBuffer>> buffers;
    std::vector<size_t> sizes;
    uint64_t sent = 0, done = 0, received = 0;
  };
  Side sides[2] = {{&pair.acceptor, pair.to_dialer, {}, {}},
                   {&pair.dialer, pair.to_acceptor, {}, {}}};
  Rng rng(3);
  for (Side& side : sides) {
    for (uint64_t i = 0; i < 40; ++i) {
      const size_t size = i % 8 == 0 ? kBodyBytesMax : rng.NextBelow(40'000);
      side.sizes.push_back(size);
      side.buffers.push_back(*(*side.end)->AllocateSendBuffer(std::max<size_t>(size, 1)));
      const auto bytes = RandomBytes(rng, size);
      std::copy(bytes.begin(), bytes.end(), side.buffers.back()->bytes().begin());
    }
  }
  const auto step = [&](Side& self, Side& other) {
    while (self.sent < kMessages) {
      const size_t which = self.sent % self.sizes.size();
      const Status sent = (*self.end)->Send(
          self.to, NumberedHeader(self.sent), self.buffers[which].get(), self.sizes[which],
          [&self](const Status& status) { self.done += status.ok() ? 1 : 1'000'000; });
      if (sent.code() == Code::kResourceExhausted) break;
      ASSERT_TRUE(sent.ok()) << sent.ToString();
      ++self.sent;
    }
    (*self.end)->Progress();
    for (; !self.end->told.messages.empty(); self.end->told.messages.pop_front()) {
      const Recorder::Message& message = self.end->told.messages.front();
      ASSERT_EQ(NumberOf(message.header), self.received);
      const size_t which = self.received++ % other.sizes.size();
      ASSERT_TRUE(std::ranges::equal(message.body,
                                     other.buffers[which]->bytes().first(other.sizes[which])));
    }
  };
  const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
  while (sides[0].received < kMessages || sides[1].received < kMessages) {
    ASSERT_LT(Clock::Real().Now(), deadline);
    step(sides[0], sides[1]);
    step(sides[1], sides[0]);
    if (HasFatalFailure()) return;
  }
  ASSERT_TRUE(pair.Run([&] { return sides[0].done >= kMessages && sides[1].done >= kMessages; }));
  EXPECT_EQ(sides[0].done, kMessages);
  EXPECT_EQ(sides[1].done, kMessages);
  EXPECT_TRUE(pair.acceptor.told.lost.empty() && pair.dialer.told.lost.empty());
}

TEST_P(TcpTransport, DisconnectCancelsWhatWaitsAndTellsNothingMore) {
  Pair pair(Secure());
  auto buffer = *pair.acceptor->AllocateSendBuffer(kBodyBytesMax);
  int good = 0, cancelled = 0, sent = 0;
  while (true) {  // until the other end's silence has filled the socket and the ring
    const Status status = pair.acceptor->Send(pair.to_dialer, {}, buffer.get(), kBodyBytesMax,
                                              [&](const Status& how) {
                                                good += how.ok();
                                                cancelled += how.code() == Code::kCancelled;
                                              });
    if (status.code() == Code::kResourceExhausted) break;
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_LT(++sent, 1000);
  }
  pair.acceptor->Disconnect(pair.to_dialer);
  EXPECT_EQ(pair.acceptor->Send(pair.to_dialer, {}, nullptr, 0, {}).code(), Code::kUnavailable);
  pair.acceptor->Disconnect(pair.to_dialer);  // once more is nothing
  ASSERT_TRUE(RunUntil({pair.acceptor.get()}, [&] { return good + cancelled == sent; }));
  EXPECT_GE(cancelled, 200);
  ASSERT_TRUE(pair.Run([&] { return !pair.dialer.told.lost.empty(); }));
  for (int i = 0; i < 100; ++i) pair.acceptor->Progress();
  EXPECT_EQ(good + cancelled, sent);
  EXPECT_TRUE(pair.acceptor.told.lost.empty());
}

TEST_P(TcpTransport, APeerThatEndsIsReportedOnceWithAReason) {
  Pair pair(Secure());
  pair.dialer.transport.reset();
  ASSERT_TRUE(RunUntil({pair.acceptor.get()}, [&] { return !pair.acceptor.told.lost.empty(); }));
  for (int i = 0; i < 100; ++i) pair.acceptor->Progress();
  ASSERT_EQ(pair.acceptor.told.lost.size(), 1u);
  EXPECT_EQ(pair.acceptor.told.lost[0].first, pair.to_dialer);
  EXPECT_EQ(pair.acceptor.told.lost[0].second.code(), Code::kUnavailable);
  EXPECT_THAT(pair.acceptor.told.lost[0].second.message(), HasSubstr("closed the connection"));
  EXPECT_EQ(pair.acceptor->Send(pair.to_dialer, {}, nullptr, 0, {}).code(), Code::kUnavailable);
}

TEST_P(TcpTransport, TheDialerIsToldOfAnAcceptorThatEnds) {
  Pair pair(Secure());
  pair.acceptor.transport.reset();
  ASSERT_TRUE(RunUntil({pair.dialer.get()}, [&] { return !pair.dialer.told.lost.empty(); }));
  EXPECT_EQ(pair.dialer.told.lost[0].first, pair.to_acceptor);
  EXPECT_EQ(pair.dialer.told.lost[0].second.code(), Code::kUnavailable)
      << pair.dialer.told.lost[0].second.ToString();
}

TEST_P(TcpTransport, WhatWasSentBeforeAnEndArrivesBeforeItIsTold) {
  Pair pair(Secure());
  for (uint64_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(pair.dialer->Send(pair.to_acceptor, NumberedHeader(i), nullptr, 0, {}).ok());
  }
  pair.dialer.transport.reset();
  ASSERT_TRUE(RunUntil({pair.acceptor.get()}, [&] { return !pair.acceptor.told.lost.empty(); }));
  EXPECT_EQ(pair.acceptor.told.messages.size(), 50u);
}

TEST_P(TcpTransport, WaitEndsOnAMessageAndOnWakeUp) {
  Pair pair(Secure());
  std::thread receiver([&] {
    while (pair.dialer.told.messages.size() < 50) {
      if (pair.dialer->Progress() == 0) pair.dialer->Wait(std::chrono::minutes(5));
    }
  });
  for (uint64_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(pair.acceptor->Send(pair.to_dialer, NumberedHeader(i), nullptr, 0, {}).ok());
  }
  receiver.join();
  for (uint64_t i = 0; i < 50; ++i) EXPECT_EQ(NumberOf(pair.dialer.told.messages[i].header), i);
  std::thread sleeper([&] { pair.dialer->Wait(std::chrono::minutes(5)); });
  pair.dialer->WakeUp();
  sleeper.join();
}

// More arrives at once than one round takes: what is left, in the socket or decrypted already, must
// not be slept over.
TEST_P(TcpTransport, WaitDoesNotSleepOverBytesThatHaveArrived) {
  constexpr uint64_t kMessages = 3000;
  Pair pair(Secure());
  auto buffer = *pair.acceptor->AllocateSendBuffer(3000);
  std::thread receiver([&] {
    while (pair.dialer.told.messages.size() < kMessages) {
      pair.dialer->Wait(std::chrono::minutes(5));
      pair.dialer->Progress();
    }
  });
  uint64_t sent = 0;
  ASSERT_TRUE(RunUntil({pair.acceptor.get()}, [&] {
    while (sent < kMessages) {
      const Status status =
          pair.acceptor->Send(pair.to_dialer, NumberedHeader(sent), buffer.get(), 3000, {});
      if (!status.ok()) break;
      ++sent;
    }
    return sent == kMessages;
  }));
  std::atomic<bool> received = false;
  std::thread flusher([&] {
    while (!received) pair.acceptor->Progress();
  });
  receiver.join();
  received = true;
  flusher.join();
  EXPECT_EQ(NumberOf(pair.dialer.told.messages.back().header), kMessages - 1);
}

TEST_P(TcpTransport, NothingIsAllocatedOnceWarm) {
  struct Counter : TransportHandler {
    void OnMessage(PeerId, std::span<const std::byte> header, std::span<const std::byte>) override {
      received += header.size();
    }
    void OnPeerLost(PeerId, const Status&) override {}
    uint64_t received = 0;
  } at_acceptor, at_dialer;
  Pair pair(Secure());
  pair.acceptor->SetHandler(&at_acceptor);
  pair.dialer->SetHandler(&at_dialer);
  auto buffer = *pair.acceptor->AllocateSendBuffer(20'000);
  const auto header = NumberedHeader(1);
  const auto exchange = [&] {
    uint64_t expected = at_acceptor.received + header.size();
    int done = 0;
    CHECK(
        pair.acceptor
            ->Send(pair.to_dialer, header, buffer.get(), 20'000, [&done](const Status&) { ++done; })
            .ok());
    CHECK(pair.dialer->Send(pair.to_acceptor, header, nullptr, 0, {}).ok());
    CHECK(pair.Run([&] { return done == 1 && at_acceptor.received == expected; }));
  };
  for (int i = 0; i < 300; ++i) exchange();
  const uint64_t before = testing_support::AllocationCount();
  for (int i = 0; i < 300; ++i) exchange();
  EXPECT_EQ(testing_support::AllocationCount(), before);
}

// More peers than are polled one by one: epoll says which have sent something.
TEST_P(TcpTransport, ManyPeersAreServedWhileOneTakesNothing) {
  constexpr size_t kPeers = 64;
  End acceptor(MakeAcceptor(Secure()));
  std::vector<std::unique_ptr<End>> dialers;
  std::vector<PeerId> ids, back;
  for (size_t i = 0; i < kPeers; ++i) {
    dialers.push_back(std::make_unique<End>(MakeDialer(Secure())));
    ids.push_back(*acceptor->Connect(dialers[i]->transport->address()));
    auto dialed = Dial(*dialers[i]->transport, *acceptor.transport);
    ASSERT_TRUE(dialed.ok()) << dialed.status().ToString();
    back.push_back(*dialed);
  }
  End& deaf = *dialers[0];
  auto buffer = *acceptor->AllocateSendBuffer(64 * 1024);
  uint64_t sent = 0, done = 0;
  while (true) {
    const Status status =
        acceptor->Send(ids[0], NumberedHeader(sent), buffer.get(), 64 * 1024,
                       [&](const Status& how) { done += how.ok() ? 1 : 1'000'000; });
    if (status.code() == Code::kResourceExhausted) break;
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_LT(++sent, 5000u);
  }
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 1; i < kPeers; ++i) {
      ASSERT_TRUE((*dialers[i])->Send(back[i], NumberedHeader(i), nullptr, 0, {}).ok());
    }
    ASSERT_TRUE(
        RunUntil({acceptor.get()}, [&] { return acceptor.told.messages.size() == kPeers - 1; }));
    for (const Recorder::Message& message : acceptor.told.messages) {
      ASSERT_EQ(message.from, ids[NumberOf(message.header)]);
      ASSERT_TRUE(acceptor->Send(message.from, message.header, nullptr, 0, {}).ok());
    }
    acceptor.told.messages.clear();
    for (size_t i = 1; i < kPeers; ++i) {
      ASSERT_TRUE(
          RunUntil({dialers[i]->get()}, [&] { return !dialers[i]->told.messages.empty(); }));
      EXPECT_EQ(NumberOf(dialers[i]->told.messages.front().header), i);
      dialers[i]->told.messages.clear();
    }
  }
  // It wakes: everything that waited arrives, although it says nothing itself.
  ASSERT_TRUE(RunUntil({acceptor.get(), deaf.get()},
                       [&] { return deaf.told.messages.size() == sent && done == sent; }))
      << deaf.told.messages.size() << " of " << sent << " arrived, " << done << " done";
  for (uint64_t i = 0; i < sent; ++i) ASSERT_EQ(NumberOf(deaf.told.messages[i].header), i);
  EXPECT_TRUE(acceptor.told.lost.empty());
}

// Frames that came in the same bytes as the end of the challenge, at an end that waits with epoll.
TEST_P(TcpTransport, FirstWordsReachADialerOfManyAcceptors) {
  constexpr size_t kAcceptors = 6;
  End dialer(MakeDialer(Secure()));
  std::vector<std::unique_ptr<End>> acceptors;
  for (size_t i = 0; i < kAcceptors; ++i) {
    acceptors.push_back(std::make_unique<End>(MakeAcceptor(Secure())));
    End& acceptor = *acceptors.back();
    const PeerId id = *acceptor->Connect(dialer->address());
    std::atomic<bool> said = false;
    std::thread thread([&] {
      while (!said) {
        acceptor->Progress();
        said = acceptor->Send(id, NumberedHeader(i), nullptr, 0, {}).ok();
      }
    });
    const auto dialed = dialer->Connect(acceptor->address());
    thread.join();
    ASSERT_TRUE(dialed.ok()) << dialed.status().ToString();
  }
  EXPECT_TRUE(RunUntil({dialer.get()}, [&] { return dialer.told.messages.size() == kAcceptors; }))
      << dialer.told.messages.size();
}

// A round takes only so much of one peer; the rest must be taken by the next, with no new event.
TEST_P(TcpTransport, AFloodToOneOfManyIsReadToItsEnd) {
  constexpr size_t kPeers = 5;
  End acceptor(MakeAcceptor(Secure()));
  std::vector<std::unique_ptr<End>> dialers;
  PeerId back = 0;
  for (size_t i = 0; i < kPeers; ++i) {
    dialers.push_back(std::make_unique<End>(MakeDialer(Secure())));
    (void)*acceptor->Connect((*dialers[i])->address());
    back = *Dial(*dialers[i]->transport, *acceptor.transport);
  }
  End& flooder = *dialers.back();
  auto buffer = *flooder->AllocateSendBuffer(kBodyBytesMax);
  for (int round = 0; round < 10; ++round) {
    uint64_t sent = 0;
    while (sent < 24 && flooder->Send(back, {}, buffer.get(), kBodyBytesMax, {}).ok()) ++sent;
    ASSERT_TRUE(RunUntil({acceptor.get(), flooder.get()},
                         [&] { return acceptor.told.messages.size() == sent; }))
        << acceptor.told.messages.size() << " of " << sent;
    acceptor.told.messages.clear();
  }
}

}  // namespace
}  // namespace engram::net
