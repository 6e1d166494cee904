// Strangers at the data port: whatever they send, and however many they are, each loses its own
// connection only, and a peer is served meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/net/tcp/dial.h"
#include "common/net/tcp/link.h"
#include "tests/common/net/few_descriptors.h"
#include "tests/common/net/raw_socket.h"
#include "tests/common/net/tcp/harness.h"

namespace engram::net {
namespace {

using testing::HasSubstr;

// Drives a transport on a thread of its own; no other thread may use it meanwhile.
class Driving {
 public:
  explicit Driving(Transport& transport)
      : transport_(transport), thread_([this] {
          while (!stop_) {
            if (transport_.Progress() == 0) transport_.Wait(std::chrono::milliseconds(20));
          }
        }) {}
  ~Driving() {
    stop_ = true;
    transport_.WakeUp();
    thread_.join();
  }

 private:
  Transport& transport_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

class TcpStrangers : public testing::TestWithParam<std::string> {
 protected:
  static std::shared_ptr<const Security> Secure() {
    return GetParam() == "Tls" ? TlsSecurity(true) : SecretSecurity("a secret of the cluster");
  }
  uint16_t port() const { return ParseTcpAddress(pair_.acceptor->address())->port; }

  // The peer's messages are answered.
  void ExpectServed() {
    const auto header = NumberedHeader(++number_);
    ASSERT_TRUE(pair_.dialer->Send(pair_.to_acceptor, header, nullptr, 0, {}).ok());
    ASSERT_TRUE(pair_.Run([&] { return !pair_.acceptor.told.messages.empty(); }));
    EXPECT_EQ(pair_.acceptor.told.messages.front().header, header);
    pair_.acceptor.told.messages.clear();
  }
  void ExpectNewPeerGetsIn() {
    End newcomer(MakeDialer(security_));
    ASSERT_TRUE(pair_.acceptor->Connect(newcomer->address()).ok());
    const auto dialed = Dial(*newcomer.transport, *pair_.acceptor.transport);
    EXPECT_TRUE(dialed.ok()) << dialed.status().ToString();
  }
  // A connection through the challenge, with its peer, to send frames of any kind on.
  TcpStream Introduced(PeerId* peer) {
    TcpAddress own;
    own.id = RandomEndpointId();
    const TcpAddress to = *ParseTcpAddress(pair_.acceptor->address());
    *peer = *pair_.acceptor->Connect(FormatTcpAddress(own));
    const Driving driving(*pair_.acceptor.transport);
    const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
    TcpStream stream = *DialTcp(to.host, to.port, deadline);
    const Status status =
        Introduce(stream, *security_, ChallengePurpose::kData, own.id, to.id, deadline);
    CHECK(status.ok()) << status.ToString();
    return stream;
  }
  // `added` to the mark: 0, it is right.
  static std::string Prefix(uint32_t header_bytes, uint32_t body_bytes, uint32_t added = 0) {
    const FramePrefix prefix = {FrameMark(header_bytes, body_bytes) + added, header_bytes,
                                body_bytes};
    return {reinterpret_cast<const char*>(&prefix), sizeof(prefix)};
  }

  const std::shared_ptr<const Security> security_ = Secure();
  Pair pair_{security_};
  uint64_t number_ = 0;
};

INSTANTIATE_TEST_SUITE_P(, TcpStrangers, testing::Values("Plain", "Tls"),
                         [](const auto& kind) { return kind.param; });

TEST_P(TcpStrangers, RandomBytesEndTheirConnectionOnly) {
  Rng rng(5);
  for (int i = 0; i < 50; ++i) {
    RawSocket stranger(port());
    std::string noise(100 + rng.NextBelow(3000), '\0');
    for (char& c : noise) c = static_cast<char>(rng.NextU64() | 0x80);
    {
      const Driving driving(*pair_.acceptor.transport);
      stranger.Send(noise);
      const std::string answer = stranger.Read();  // until it is closed; a TLS alert at most
      EXPECT_LT(answer.size(), 16u);
    }
    ExpectServed();
  }
  ExpectNewPeerGetsIn();
}

TEST_P(TcpStrangers, HandshakesThatStopAnywhereDisturbNobody) {
  const std::string opening =
      Challenge::Dial(ChallengePurpose::kData, "", "", RandomEndpointId(), {}).TakeOutput();
  for (size_t bytes = 0; bytes <= opening.size(); bytes += 3) {
    RawSocket stranger(port());
    ASSERT_TRUE(stranger.Send(std::string_view(opening).substr(0, bytes)) || bytes == 0);
    pair_.acceptor->Progress();
  }
  ExpectServed();
  ExpectNewPeerGetsIn();
}

TEST_P(TcpStrangers, IdleConnectionsBeyondTheLimitKeepNobodyOut) {
  std::vector<std::unique_ptr<RawSocket>> idle;
  for (int i = 0; i < 400; ++i) {
    idle.push_back(std::make_unique<RawSocket>(port()));
    pair_.acceptor->Progress();
    if (i % 100 == 0) ExpectServed();
  }
  ExpectNewPeerGetsIn();
  ExpectServed();
}

TEST_P(TcpStrangers, FramesThatAreNoneEndTheirSenderWithDataLoss) {
  constexpr uint32_t kHeader = kHeaderBytesMax, kBody = kBodyBytesMax;
  Rng rng(9);
  std::string noise(5000, '\0');
  for (char& c : noise) c = static_cast<char>(rng.NextU64());
  for (const std::string& bytes :
       {noise, std::string(12, '\0'), Prefix(kHeader + 1, 0), Prefix(0, kBody + 1),
        Prefix(UINT32_MAX, UINT32_MAX), Prefix(1, 1, 1), Prefix(0, 0) + noise}) {
    PeerId peer = 0;
    TcpStream stream = Introduced(&peer);
    ASSERT_TRUE(WriteAll(stream, bytes, Clock::Real().Now() + kTestTimeout, "writing").ok());
    ASSERT_TRUE(
        RunUntil({pair_.acceptor.get()}, [&] { return !pair_.acceptor.told.lost.empty(); }));
    EXPECT_EQ(pair_.acceptor.told.lost[0].first, peer);
    EXPECT_EQ(pair_.acceptor.told.lost[0].second.code(), Code::kDataLoss);
    pair_.acceptor.told.lost.clear();
    pair_.acceptor.told.messages.clear();  // of the empty frame that was one
    ExpectServed();
  }
}

// Else the receiver would wait for bytes that do not come.
TEST_P(TcpStrangers, ALengthThatChangedOnTheWayEndsTheConnection) {
  for (size_t at = 0; at < sizeof(FramePrefix); ++at) {
    std::string bytes = Prefix(8, 8) + std::string(16, 'x');
    bytes[at] = static_cast<char>(bytes[at] ^ 0x01);
    PeerId peer = 0;
    TcpStream stream = Introduced(&peer);
    ASSERT_TRUE(WriteAll(stream, bytes, Clock::Real().Now() + kTestTimeout, "writing").ok());
    ASSERT_TRUE(RunUntil({pair_.acceptor.get()}, [&] { return !pair_.acceptor.told.lost.empty(); }))
        << at;
    EXPECT_EQ(pair_.acceptor.told.lost[0].second.code(), Code::kDataLoss);
    EXPECT_TRUE(pair_.acceptor.told.messages.empty());
    pair_.acceptor.told.lost.clear();
  }
  ExpectServed();
}

TEST_P(TcpStrangers, AFrameCutShortIsNotDelivered) {
  for (const std::string& bytes :
       {std::string("E"), Prefix(8, 8), Prefix(8, 8) + "1234567812345"}) {
    PeerId peer = 0;
    {
      TcpStream stream = Introduced(&peer);
      ASSERT_TRUE(WriteAll(stream, bytes, Clock::Real().Now() + kTestTimeout, "writing").ok());
    }
    ASSERT_TRUE(
        RunUntil({pair_.acceptor.get()}, [&] { return !pair_.acceptor.told.lost.empty(); }));
    EXPECT_EQ(pair_.acceptor.told.lost[0].first, peer);
    EXPECT_TRUE(pair_.acceptor.told.messages.empty());
    pair_.acceptor.told.lost.clear();
  }
  ExpectServed();
}

TEST_P(TcpStrangers, AFrameByteByByteIsDeliveredOnce) {
  PeerId peer = 0;
  TcpStream stream = Introduced(&peer);
  const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
  const std::string bytes = Prefix(3, 4) + "abcdefg";
  for (const char byte : bytes) {
    ASSERT_TRUE(pair_.acceptor.told.messages.empty());
    ASSERT_TRUE(WriteAll(stream, {&byte, 1}, deadline, "writing").ok());
    pair_.acceptor->Progress();
  }
  ASSERT_TRUE(
      RunUntil({pair_.acceptor.get()}, [&] { return !pair_.acceptor.told.messages.empty(); }));
  EXPECT_EQ(pair_.acceptor.told.messages[0].from, peer);
  EXPECT_EQ(pair_.acceptor.told.messages[0].header.size(), 3u);
  EXPECT_EQ(std::memcmp(pair_.acceptor.told.messages[0].body.data(), "defg", 4), 0);
}

TEST_P(TcpStrangers, RunningOutOfDescriptorsIsSurvived) {
  const uint16_t data_port = port();
  ExpectServed();  // now: UBSan looks at a type for the first time with descriptors of its own
  FewDescriptors few;
  few.TakeAll();
  few.Release(1);
  const RawSocket stranger(data_port);  // takes the last
  ASSERT_TRUE(stranger.connected());
  for (int i = 0; i < 200; ++i) pair_.acceptor->Progress();
  ExpectServed();
  few.Release(50);
  ExpectNewPeerGetsIn();
}

TEST(TcpGuests, OneInTheMiddleOfItsChallengeDoesNotGiveWayToIdleOnes) {
  End acceptor(MakeAcceptor());
  TcpAddress own;
  own.id = RandomEndpointId();
  const TcpAddress to = *ParseTcpAddress(acceptor->address());
  const PeerId peer = *acceptor->Connect(FormatTcpAddress(own));
  RawSocket socket(to.port);
  Challenge challenge = Challenge::Dial(ChallengePurpose::kData, "", "", own.id, to.id);
  std::string answer(challenge.wanted_bytes(), '\0');
  {
    const Driving driving(*acceptor.transport);
    socket.Send(challenge.TakeOutput());
    ASSERT_TRUE(socket.ReadExactly(&answer));
  }
  std::vector<std::unique_ptr<RawSocket>> idle;
  for (int i = 0; i < 300; ++i) {
    idle.push_back(std::make_unique<RawSocket>(to.port));
    for (int round = 0; round < 40; ++round) acceptor->Progress();
  }
  ASSERT_TRUE(challenge.Consume(answer).ok());
  ASSERT_TRUE(socket.Send(challenge.TakeOutput()));
  EXPECT_TRUE(
      RunUntil({acceptor.get()}, [&] { return acceptor->Send(peer, {}, nullptr, 0, {}).ok(); }));
}

// Strangers at 8,000 connections a second do not push out the peer just arriving.
TEST(TcpGuests, AFloodOfValidOpeningsDoesNotPushOutOneThatIsArriving) {
  constexpr int kFlood = 400;
  End acceptor(MakeAcceptor());
  TcpAddress own;
  own.id = RandomEndpointId();
  const TcpAddress to = *ParseTcpAddress(acceptor->address());
  const PeerId peer = *acceptor->Connect(FormatTcpAddress(own));
  std::vector<std::unique_ptr<RawSocket>> silent;
  const auto flood = [&] {
    for (int i = 0; i < kFlood; ++i) {
      silent.push_back(std::make_unique<RawSocket>(to.port));
      silent.back()->Send(
          Challenge::Dial(ChallengePurpose::kData, "", "", RandomEndpointId(), to.id).TakeOutput());
      for (int round = 0; round < 20; ++round) acceptor->Progress();
    }
  };
  flood();
  RawSocket socket(to.port);
  for (int round = 0; round < 20; ++round) acceptor->Progress();
  flood();
  Challenge challenge = Challenge::Dial(ChallengePurpose::kData, "", "", own.id, to.id);
  std::string answer(challenge.wanted_bytes(), '\0');
  {
    const Driving driving(*acceptor.transport);
    socket.Send(challenge.TakeOutput());
    ASSERT_TRUE(socket.ReadExactly(&answer));
  }
  flood();
  ASSERT_TRUE(challenge.Consume(answer).ok());
  ASSERT_TRUE(socket.Send(challenge.TakeOutput()));
  EXPECT_TRUE(
      RunUntil({acceptor.get()}, [&] { return acceptor->Send(peer, {}, nullptr, 0, {}).ok(); }));
}

TEST(TcpGuests, WithoutDescriptorsASilentOneGivesItsToAPeer) {
  const auto security = std::make_shared<const Security>();
  Pair pair(security);
  const uint16_t port = ParseTcpAddress(pair.acceptor->address())->port;
  End newcomer(MakeDialer(security));
  ASSERT_TRUE(pair.acceptor->Connect(newcomer->address()).ok());
  std::vector<std::unique_ptr<RawSocket>> silent;
  for (int i = 0; i < 8; ++i) silent.push_back(std::make_unique<RawSocket>(port));
  for (int round = 0; round < 2000; ++round) pair.acceptor->Progress();
  FewDescriptors few;
  few.TakeAll();
  few.Release(1);  // for the newcomer's own end
  const auto dialed = Dial(*newcomer.transport, *pair.acceptor.transport);
  EXPECT_TRUE(dialed.ok()) << dialed.status().ToString();
  EXPECT_TRUE(silent.front()->Closed());
}

TEST(TcpReplay, RecordedBytesOfAPeerAreRefused) {
  const std::string secret = "a secret of the cluster";
  End acceptor(MakeAcceptor(SecretSecurity(secret)));
  TcpAddress own;
  own.id = RandomEndpointId();
  const TcpAddress to = *ParseTcpAddress(acceptor->address());
  std::string opening, proof;
  PeerId peer = *acceptor->Connect(FormatTcpAddress(own));
  {
    const Driving driving(*acceptor.transport);
    RawSocket socket(to.port);
    Challenge challenge = Challenge::Dial(ChallengePurpose::kData, secret, "", own.id, to.id);
    socket.Send(opening = challenge.TakeOutput());
    std::string answer(challenge.wanted_bytes(), '\0');
    ASSERT_TRUE(socket.ReadExactly(&answer));
    ASSERT_TRUE(challenge.Consume(answer).ok());
    socket.Send(proof = challenge.TakeOutput());
    answer.resize(challenge.wanted_bytes());
    ASSERT_TRUE(socket.ReadExactly(&answer));
    ASSERT_TRUE(challenge.Consume(answer).ok() && challenge.done());
  }
  ASSERT_TRUE(RunUntil({acceptor.get()}, [&] { return !acceptor.told.lost.empty(); }));
  EXPECT_EQ(acceptor.told.lost[0].first, peer);
  peer = *acceptor->Connect(FormatTcpAddress(own));  // expected again
  {
    const Driving driving(*acceptor.transport);
    RawSocket socket(to.port);
    socket.Send(opening + proof);
    socket.Read();  // until it is closed
  }
  EXPECT_EQ(acceptor->Send(peer, {}, nullptr, 0, {}).code(), Code::kUnavailable);
}

}  // namespace
}  // namespace engram::net
