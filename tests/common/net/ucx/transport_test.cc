// The real transport over TCP on this machine: messages of every size both ways, waiting, and a
// peer that dies.
#include "common/net/ucx/transport.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>

#include "common/base/rng.h"
#include "common/net/ucx/address.h"

namespace engram::net {
namespace {

constexpr auto kTestTimeout = std::chrono::seconds(20);

std::unique_ptr<Transport> MakeTransport() {
  auto transport = MakeUcxTransport({});
  CHECK(transport.ok()) << transport.status().ToString();
  return std::move(*transport);
}

struct Recorder : TransportHandler {
  struct Message {
    PeerId from;
    std::vector<std::byte> header, body;
  };
  void OnMessage(PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override {
    messages.push_back({from, {header.begin(), header.end()}, {body.begin(), body.end()}});
  }
  void OnPeerLost(PeerId peer, const Status& why) override { lost.emplace_back(peer, why); }
  std::deque<Message> messages;
  std::vector<std::pair<PeerId, Status>> lost;
};

// Drives both ends until `done` holds; false when it never did.
template <typename Done>
bool RunUntil(std::initializer_list<Transport*> transports, Done done) {
  const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
  while (!done()) {
    if (Clock::Real().Now() > deadline) return false;
    for (Transport* transport : transports) transport->Progress();
  }
  return true;
}

std::vector<std::byte> RandomBytes(Rng& rng, size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.NextU64());
  return bytes;
}

TEST(UcxTransport, MessagesOfEverySizeArriveUnchangedBothWays) {
  const auto a = MakeTransport();
  const auto b = MakeTransport();
  Recorder at_a, at_b;
  a->SetHandler(&at_a);
  b->SetHandler(&at_b);
  const PeerId a_to_b = *a->Connect(b->address());
  const PeerId b_to_a = *b->Connect(a->address());
  auto buffer = *a->AllocateSendBuffer(kBodyBytesMax);
  Rng rng(7);
  const size_t body_sizes[] = {0, 1, 1023, 1025, 9000, 126'720, 131'072, kBodyBytesMax};
  for (int i = 0; i < 100; ++i) {
    const size_t body_bytes = body_sizes[i % 8];
    const auto header = RandomBytes(rng, i == 0 ? kHeaderBytesMax : 40);
    const auto body = RandomBytes(rng, body_bytes);
    std::copy(body.begin(), body.end(), buffer->bytes().begin());
    const bool forth = i % 2 == 0 || i % 8 == 7;
    Transport& sender = forth ? *a : *b;
    Recorder& receiver = forth ? at_b : at_a;
    std::unique_ptr<SendBuffer> own;
    if (!forth) {
      own = *b->AllocateSendBuffer(std::max<size_t>(body_bytes, 1));
      std::copy(body.begin(), body.end(), own->bytes().begin());
    }
    std::optional<Status> sent;
    ASSERT_TRUE(sender
                    .Send(forth ? a_to_b : b_to_a, header, forth ? buffer.get() : own.get(),
                          body_bytes, [&](Status status) { sent = std::move(status); })
                    .ok());
    ASSERT_TRUE(RunUntil({a.get(), b.get()}, [&] { return sent && !receiver.messages.empty(); }));
    EXPECT_TRUE(sent->ok()) << sent->ToString();
    const Recorder::Message message = std::move(receiver.messages.front());
    receiver.messages.pop_front();
    EXPECT_EQ(message.from, forth ? b_to_a : a_to_b);
    ASSERT_EQ(message.header, header);
    ASSERT_EQ(message.body, body);
  }
}

TEST(UcxTransport, LimitsAndUnknownPeersAreRefused) {
  const auto a = MakeTransport();
  const std::vector<std::byte> header(kHeaderBytesMax + 1);
  EXPECT_EQ(a->Send(1, header, nullptr, 0, {}).code(), Code::kResourceExhausted);
  EXPECT_EQ(a->Send(1, {}, nullptr, 0, {}).code(), Code::kUnavailable);
  EXPECT_EQ(a->Connect(a->address()).status().code(), Code::kAlreadyExists);
}

TEST(UcxTransport, DamagedAddressesAreRefusedBeforeUcxSeesThem) {
  const auto a = MakeTransport();
  const auto b = MakeTransport();
  const std::string good = b->address();
  EXPECT_EQ(a->Connect("").status().code(), Code::kInvalidArgument);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    EXPECT_EQ(a->Connect(bad).status().code(), Code::kInvalidArgument) << i;
    EXPECT_EQ(a->Connect(good.substr(0, i)).status().code(), Code::kInvalidArgument) << i;
  }
}

TEST(UcxTransport, UnknownTransportsAreAClearError) {
  const auto result = MakeUcxTransport({.tls = "no_such_transport"});
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("no_such_transport"), std::string::npos);
}

TEST(UcxTransport, SettingsNameTheSegmentSize) {
  EXPECT_NE((*MakeUcxTransport({}))->settings(),
            (*MakeUcxTransport({.segment_bytes = 64 * 1024}))->settings());
}

TEST(UcxTransport, MessagesFromStrangersAreDropped) {
  const auto a = MakeTransport();
  const auto b = MakeTransport();
  const auto c = MakeTransport();
  Recorder at_b, ignored;
  a->SetHandler(&ignored);
  b->SetHandler(&at_b);
  c->SetHandler(&ignored);
  const PeerId a_to_b = *a->Connect(b->address());  // b has not connected to a
  const PeerId c_to_b = *c->Connect(b->address());
  const PeerId b_to_c = *b->Connect(c->address());
  const std::vector<std::byte> header(8);
  bool stranger_sent = false;
  ASSERT_TRUE(
      a->Send(a_to_b, header, nullptr, 0, [&](const Status&) { stranger_sent = true; }).ok());
  ASSERT_TRUE(RunUntil({a.get(), b.get(), c.get()}, [&] { return stranger_sent; }));
  ASSERT_TRUE(c->Send(c_to_b, header, nullptr, 0, {}).ok());
  ASSERT_TRUE(RunUntil({a.get(), b.get(), c.get()}, [&] { return !at_b.messages.empty(); }));
  EXPECT_EQ(at_b.messages.size(), 1u);
  EXPECT_EQ(at_b.messages[0].from, b_to_c);
}

TEST(UcxTransport, WaitEndsOnAMessageAndOnWakeUp) {
  const auto a = MakeTransport();
  const auto b = MakeTransport();
  Recorder at_a, at_b;
  a->SetHandler(&at_a);
  b->SetHandler(&at_b);
  const PeerId a_to_b = *a->Connect(b->address());
  (void)*b->Connect(a->address());
  std::thread receiver([&] {
    while (at_b.messages.size() < 50) {
      if (b->Progress() == 0) b->Wait(std::chrono::seconds(10));
    }
  });
  const std::vector<std::byte> header(16);
  int sent = 0;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(a->Send(a_to_b, header, nullptr, 0, [&](const Status&) { ++sent; }).ok());
    while (a->Progress() > 0) {
    }
  }
  ASSERT_TRUE(RunUntil({a.get()}, [&] { return sent == 50; }));
  receiver.join();
  std::thread sleeper([&] { b->Wait(std::chrono::minutes(5)); });
  b->WakeUp();
  sleeper.join();
}

TEST(UcxTransport, DisconnectEndsTheConversation) {
  const auto a = MakeTransport();
  const auto b = MakeTransport();
  Recorder at_a, at_b;
  a->SetHandler(&at_a);
  b->SetHandler(&at_b);
  const PeerId a_to_b = *a->Connect(b->address());
  (void)*b->Connect(a->address());
  const std::vector<std::byte> header(16);
  ASSERT_TRUE(a->Send(a_to_b, header, nullptr, 0, {}).ok());
  ASSERT_TRUE(RunUntil({a.get(), b.get()}, [&] { return !at_b.messages.empty(); }));
  a->Disconnect(a_to_b);
  EXPECT_EQ(a->Send(a_to_b, header, nullptr, 0, {}).code(), Code::kUnavailable);
  for (int i = 0; i < 1000; ++i) a->Progress();
  EXPECT_TRUE(at_a.lost.empty());
}

// The child's life: connects to the parent, says one word, then serves until it is killed.
[[noreturn]] void RunChild(int from_parent, int to_parent) {
  const auto transport = MakeTransport();
  Recorder recorder;
  transport->SetHandler(&recorder);
  const std::string own = transport->address();
  char address[4096];
  if (::write(to_parent, own.data(), own.size()) < 0) ::_exit(1);
  const ssize_t size = ::read(from_parent, address, sizeof(address));
  if (size <= 0) ::_exit(1);
  const auto parent = transport->Connect({address, static_cast<size_t>(size)});
  const std::vector<std::byte> header(16);
  if (!parent.ok() || !transport->Send(*parent, header, nullptr, 0, {}).ok()) ::_exit(1);
  ::alarm(30);
  while (true) {
    if (transport->Progress() == 0) transport->Wait(std::chrono::milliseconds(100));
  }
}

TEST(UcxTransport, AKilledPeerIsReported) {
  int to_child[2], to_parent[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(to_parent), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) RunChild(to_child[0], to_parent[1]);
  const auto a = MakeTransport();
  Recorder at_a;
  a->SetHandler(&at_a);
  char address[4096];
  const ssize_t size = ::read(to_parent[0], address, sizeof(address));
  ASSERT_GT(size, 0);
  const PeerId peer = *a->Connect({address, static_cast<size_t>(size)});
  const std::string own = a->address();
  ASSERT_EQ(::write(to_child[1], own.data(), own.size()), static_cast<ssize_t>(own.size()));
  const std::vector<std::byte> header(16);
  ASSERT_TRUE(a->Send(peer, header, nullptr, 0, {}).ok());
  EXPECT_TRUE(RunUntil({a.get()}, [&] { return !at_a.messages.empty(); }));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(RunUntil({a.get()}, [&] { return !at_a.lost.empty(); }));
  ASSERT_EQ(at_a.lost.size(), 1u);
  EXPECT_EQ(at_a.lost[0].first, peer);
  EXPECT_EQ(at_a.lost[0].second.code(), Code::kUnavailable);
  EXPECT_EQ(a->Send(peer, header, nullptr, 0, {}).code(), Code::kUnavailable);
  for (const int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) ::close(fd);
}

}  // namespace
}  // namespace engram::net
