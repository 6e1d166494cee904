// The control connection: hello and welcome, refusals, the sign of life, and strangers.
#include "common/net/control/control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>
#include <set>

#include "common/base/rng.h"
#include "common/net/control/messages.h"
#include "common/net/tcp/challenge.h"
#include "common/net/tcp/dial.h"
#include "tests/common/net/few_descriptors.h"
#include "tests/common/net/raw_socket.h"
#include "tests/common/net/tcp/harness.h"

namespace engram::net {
namespace {

using testing::HasSubstr;

constexpr Nanos kTimeout = std::chrono::seconds(10);

table::TableIdentity MakeIdentity() {
  table::TableIdentity identity;
  identity.model = "tiny";
  identity.version = "1";
  identity.max_ngram_size = 3;
  identity.heads_per_order = 2;
  identity.head_dim = 32;
  identity.row_encoding = "bf16";
  identity.compressed_vocab_size = 100;
  identity.pad_compressed = 2;
  identity.layers.push_back({1, 44, {3, 5, 9'223'372'036'854'775'807}, {7, 11, 13, 13}});
  return identity;
}

Hello MakeHello() {
  return {kControlProtocol, MakeIdentity(), "loopback", "settings", std::string("\0\x01\xff", 3)};
}

struct Node {
  bool takes_damage = false;
  bool late = false;  // hellos are answered by the test

  explicit Node(uint16_t port = 0) : Node(nullptr, port) {}
  explicit Node(std::shared_ptr<const Security> security, uint16_t port = 0) {
    ControlServer::Callbacks callbacks;
    callbacks.on_hello = [this](const Hello& hello, const auto& answer) {
      if (!late) return answer(OnHello(hello));
      const std::lock_guard lock(mutex);
      waiting.push_back(answer);
      changed.notify_all();
    };
    callbacks.on_damaged = [this](uint64_t session, const DamagedRow& row) {
      const std::lock_guard lock(mutex);
      damaged.emplace_back(session, row);
      changed.notify_all();
    };
    callbacks.on_gone = [this](uint64_t session) {
      const std::lock_guard lock(mutex);
      EXPECT_TRUE(gone.insert(session).second) << "told twice";
      changed.notify_all();
    };
    started = ControlServer::Start("127.0.0.1", port, std::move(callbacks), std::move(security));
  }
  Result<Welcome> OnHello(const Hello& hello) {
    if (hello.settings != "settings") return FailedPrecondition("settings differ");
    Welcome welcome;
    welcome.member = "m0";
    welcome.map = {7, {"m0", "m1"}};
    welcome.identity = hello.identity;
    welcome.identity.content_digest = std::string(64, 'a');
    welcome.session = next_session++;
    welcome.settings = hello.settings;
    welcome.takes_damage = takes_damage;
    welcome.address = hello.address + "back";
    welcome.known_answers = {{0, 18'446'744'073'709'551'615ull, std::string(64, 'b')}};
    return welcome;
  }
  uint16_t port() const { return (*started)->port(); }
  Result<std::unique_ptr<ControlClient>> Connect(const Hello& hello = MakeHello()) {
    return ControlClient::Connect("127.0.0.1", port(), hello, kTimeout);
  }
  bool WaitHellos(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kTimeout, [&] { return waiting.size() >= count; });
  }
  bool WaitGone(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kTimeout, [&] { return gone.size() >= count; });
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::set<uint64_t> gone;
  std::vector<std::pair<uint64_t, DamagedRow>> damaged;
  std::vector<ControlServer::AnswerHello> waiting;
  uint64_t next_session = 0xfedc'ba98'0000'0001;
  Result<std::unique_ptr<ControlServer>> started = Unavailable("not yet");
};

bool LostInTime(ControlClient& client) {
  const TimePoint deadline = Clock::Real().Now() + kTimeout;
  while (!client.Lost()) {
    if (Clock::Real().Now() > deadline) return false;
  }
  return true;
}

TEST(Control, WelcomeArrivesWithEveryField) {
  Node node;
  const auto client = node.Connect();
  ASSERT_TRUE(client.ok()) << client.status().ToString();
  const Welcome& welcome = (*client)->welcome();
  EXPECT_EQ(welcome.member, "m0");
  EXPECT_EQ(welcome.map, (table::ClusterMap{7, {"m0", "m1"}}));
  EXPECT_EQ(welcome.session, 0xfedc'ba98'0000'0001);
  EXPECT_EQ(welcome.address, std::string("\0\x01\xff", 3) + "back");
  EXPECT_EQ(welcome.identity.layers, MakeIdentity().layers);
  EXPECT_EQ(welcome.identity.content_digest, std::string(64, 'a'));
  ASSERT_EQ(welcome.known_answers.size(), 1u);
  EXPECT_EQ(welcome.known_answers[0].row, 18'446'744'073'709'551'615ull);
  EXPECT_FALSE((*client)->Lost());
}

uint32_t ToldInTime(ControlClient& client, uint32_t epoch) {
  const TimePoint deadline = Clock::Real().Now() + kTimeout;
  while (client.told_epoch() < epoch && !client.Lost() && Clock::Real().Now() < deadline) {
  }
  return client.told_epoch();
}

TEST(Control, NewsOfLaterEpochsReachesClientsThatTakeIt) {
  Node node;
  node.takes_damage = true;
  Hello takes = MakeHello();
  takes.takes_news = true;
  const auto told = node.Connect(takes);
  const auto old = node.Connect();
  ASSERT_TRUE(told.ok() && old.ok());
  (*node.started)->TellEpoch(7);  // what they were welcomed to
  (*node.started)->TellEpoch(8);
  EXPECT_EQ(ToldInTime(**told, 8), 8u);
  (*node.started)->TellEpoch(12);
  EXPECT_EQ(ToldInTime(**told, 12), 12u);
  EXPECT_TRUE((*told)->ReportDamaged({0, 3})) << "the connection is as good as before";
  // One that was welcomed to the map before, and one that takes none.
  const auto late = node.Connect(takes);
  ASSERT_TRUE(late.ok());
  EXPECT_EQ(ToldInTime(**late, 12), 12u);
  EXPECT_FALSE((*old)->Lost());
  EXPECT_EQ((*old)->told_epoch(), 0u);
}

TEST(Control, EndedSessionsLoseTheirConnection) {
  Node node;
  const auto ended = node.Connect();
  const auto other = node.Connect();
  ASSERT_TRUE(ended.ok() && other.ok());
  (*node.started)->End({(*ended)->welcome().session, 4711});
  EXPECT_TRUE(LostInTime(**ended));
  EXPECT_TRUE(node.WaitGone(1));
  EXPECT_FALSE((*other)->Lost());
}

TEST(Control, AHelloThatWaitsForItsAnswerHoldsUpNoOther) {
  Node node;
  node.late = true;
  const auto connect = [&] { return node.Connect(); };
  auto first = std::async(std::launch::async, connect);
  ASSERT_TRUE(node.WaitHellos(1));
  auto second = std::async(std::launch::async, connect);
  ASSERT_TRUE(node.WaitHellos(2));
  node.waiting[1](node.OnHello(MakeHello()));
  EXPECT_TRUE(second.get().ok());
  node.waiting[0](FailedPrecondition("later, refused"));
  EXPECT_THAT(first.get().status().message(), HasSubstr("later, refused"));
}

TEST(Control, TheSessionOfAClientThatLeftBeforeItsAnswerEnds) {
  Node node;
  node.late = true;
  EXPECT_FALSE(
      ControlClient::Connect("127.0.0.1", node.port(), MakeHello(), std::chrono::milliseconds(200))
          .ok());
  ASSERT_TRUE(node.WaitHellos(1));
  node.waiting[0](node.OnHello(MakeHello()));
  EXPECT_TRUE(node.WaitGone(1));
}

TEST(Control, AnAnswerAfterTheServersEndIsNone) {
  Node node;
  node.late = true;
  auto client = std::async(std::launch::async, [&] { return node.Connect(); });
  ASSERT_TRUE(node.WaitHellos(1));
  node.started = Unavailable("gone");
  node.waiting[0](node.OnHello(MakeHello()));
  EXPECT_FALSE(client.get().ok());
  EXPECT_TRUE(node.gone.empty());
}

TEST(Control, OptionalWelcomeFieldsTravelWhenSetAndOnlyThen) {
  Welcome welcome;
  welcome.map = {7, {"m0"}};
  welcome.identity = MakeIdentity();
  const std::string plain = WelcomeFrame(welcome).substr(kFramePrefixBytes);
  for (const char* key :
       {"window", "local_socket", "local_token", "one_sided_key", "transport", "generation"}) {
    EXPECT_EQ(plain.find(key), std::string::npos) << key;
  }
  ASSERT_TRUE(ParseAnswer(plain).ok()) << ParseAnswer(plain).status().ToString();
  EXPECT_EQ(ParseAnswer(plain)->window, 0u);
  EXPECT_EQ(ParseAnswer(plain)->generation, 0u);
  welcome.generation = 18'446'744'073'709'551'615ull;
  welcome.window = 8;
  welcome.transport = "tcp";
  welcome.local_socket = "@engram-m0";
  welcome.local_token = std::string("\0\xfftoken", 7);
  welcome.one_sided_key = std::string(kOneSidedKeyBytesMax, '\x80');
  const Result<Welcome> parsed = ParseAnswer(WelcomeFrame(welcome).substr(kFramePrefixBytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(parsed->window, 8u);
  EXPECT_EQ(parsed->generation, 18'446'744'073'709'551'615ull);
  EXPECT_EQ(parsed->transport, "tcp");
  EXPECT_EQ(parsed->local_socket, "@engram-m0");
  EXPECT_EQ(parsed->local_token, welcome.local_token);
  EXPECT_EQ(parsed->one_sided_key, welcome.one_sided_key);
  welcome.one_sided_key.push_back('x');
  const auto refused = ParseAnswer(WelcomeFrame(welcome).substr(kFramePrefixBytes));
  EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("one_sided_key"));
}

TEST(Control, RefusalComesThroughWithCodeAndReason) {
  Node node;
  Hello hello = MakeHello();
  hello.settings = "other";
  const auto client = node.Connect(hello);
  EXPECT_EQ(client.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(client.status().message(), HasSubstr("settings differ"));
  EXPECT_THAT(client.status().message(), HasSubstr("127.0.0.1"));
}

TEST(Control, AnotherProtocolIsRefused) {
  Node node;
  Hello hello = MakeHello();
  hello.protocol = 9;
  const auto client = node.Connect(hello);
  EXPECT_EQ(client.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(client.status().message(), HasSubstr("protocol 9"));
}

TEST(Control, NodeLearnsOfEachClientThatLeaves) {
  Node node;
  auto first = node.Connect();
  auto second = node.Connect();
  ASSERT_TRUE(first.ok() && second.ok());
  first = Unavailable("closed");
  EXPECT_TRUE(node.WaitGone(1));
  EXPECT_FALSE((*second)->Lost());
  second = Unavailable("closed");
  EXPECT_TRUE(node.WaitGone(2));
}

TEST(Control, ClientLearnsThatTheNodeLeft) {
  Node node;
  const auto client = node.Connect();
  ASSERT_TRUE(client.ok());
  node.started = Unavailable("closed");
  EXPECT_TRUE(LostInTime(**client));
  EXPECT_TRUE(node.WaitGone(1));
}

TEST(Control, PortInUseIsNamed) {
  Node node;
  Node second(node.port());
  EXPECT_EQ(second.started.status().code(), Code::kAlreadyExists);
  EXPECT_THAT(second.started.status().message(),
              HasSubstr("127.0.0.1:" + std::to_string(node.port())));
}

TEST(Control, NobodyListeningIsUnavailable) {
  uint16_t port = 0;
  {
    Node node;
    port = node.port();
  }
  const auto client = ControlClient::Connect("127.0.0.1", port, MakeHello(), kTimeout);
  EXPECT_EQ(client.status().code(), Code::kUnavailable);
  EXPECT_THAT(client.status().message(), HasSubstr("refused"));
}

TEST(Control, ASilentNodeIsGivenUpInTime) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where = {};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(where);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&where), sizeof(where)), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&where), &length);
  const auto client = ControlClient::Connect("127.0.0.1", ntohs(where.sin_port), MakeHello(),
                                             std::chrono::milliseconds(20));
  EXPECT_EQ(client.status().code(), Code::kDeadlineExceeded);
  ::close(listener);
}

TEST(Control, ARowThatCameDamagedIsToldToItsNode) {
  Node node;
  node.takes_damage = true;
  const auto client = node.Connect();
  ASSERT_TRUE(client.ok()) << client.status().message();
  constexpr uint64_t kReports = 3;
  const TimePoint deadline = Clock::Real().Now() + kTimeout;
  for (uint64_t told = 0; told < kReports && Clock::Real().Now() < deadline;) {
    if ((*client)->ReportDamaged({5, UINT64_MAX - told})) ++told;
  }
  std::unique_lock lock(node.mutex);
  ASSERT_TRUE(
      node.changed.wait_for(lock, kTimeout, [&] { return node.damaged.size() == kReports; }));
  for (uint64_t i = 0; i < kReports; ++i) {
    EXPECT_EQ(node.damaged[i].first, (*client)->welcome().session);
    EXPECT_EQ(node.damaged[i].second.layer_index, 5u);
    EXPECT_EQ(node.damaged[i].second.row, UINT64_MAX - i);
  }
  lock.unlock();
  EXPECT_FALSE((*client)->Lost());
}

TEST(Control, ANodeThatTakesNoReportsIsToldNone) {
  Node node;
  const auto client = node.Connect();
  ASSERT_TRUE(client.ok());
  EXPECT_FALSE((*client)->ReportDamaged({0, 1}));
  EXPECT_FALSE((*client)->Lost());
}

TEST(Control, DamagedRowsAreReadStrictly) {
  const std::string frame = DamagedFrame({3, 17});
  const auto row = ParseDamaged(std::string_view(frame).substr(kFramePrefixBytes));
  ASSERT_TRUE(row.ok()) << row.status().message();
  EXPECT_EQ(row->layer_index, 3u);
  EXPECT_EQ(row->row, 17u);
  EXPECT_LE(DamagedFrame({UINT32_MAX, UINT64_MAX}).size(), kDamagedFrameBytesMax);
  for (const char* text :
       {"", "[]", "{}", R"({"damaged": 1})", R"({"damaged": {"layer": 1}})",
        R"({"damaged": {"layer": -1, "row": "1"}})", R"({"damaged": {"layer": 1, "row": 1}})",
        R"({"damaged": {"layer": 1, "row": "1x"}})"}) {
    EXPECT_EQ(ParseDamaged(text).status().code(), Code::kInvalidArgument) << text;
  }
}

TEST(Control, StrangersBytesEndTheirConnectionOnly) {
  Node node;
  const auto client = node.Connect();
  ASSERT_TRUE(client.ok());
  Rng rng(5);
  std::vector<std::string> strange = {std::string(4096, '\xff'), "GET / HTTP/1.1\r\n\r\n",
                                      std::string(64, '\0')};
  std::string noise(1000, '\0');
  for (char& c : noise) c = static_cast<char>(rng.NextU64());
  noise[3] = '\x7f';  // a length over the limit
  strange.push_back(noise);
  for (const std::string& bytes : strange) {
    RawSocket stranger(node.port());
    stranger.Send(bytes);
    EXPECT_TRUE(stranger.Closed());
  }
  EXPECT_FALSE((*client)->Lost());
  EXPECT_TRUE(node.Connect().ok());
}

TEST(Control, BadJsonIsToldWhatIsWrong) {
  Node node;
  for (const std::string text : {"{}", "[1,2", "{\"hello\":{\"protocol\":-1}}", "{\"hello\":7}"}) {
    const TimePoint deadline = Clock::Real().Now() + kTimeout;
    TcpStream stream = *DialTcp("127.0.0.1", node.port(), deadline);
    ASSERT_TRUE(Introduce(stream, Security(), ChallengePurpose::kControl, RandomEndpointId(),
                          EndpointId{}, deadline)
                    .ok());
    std::string frame(kFramePrefixBytes, '\0');
    const auto length = static_cast<uint32_t>(text.size());
    std::memcpy(frame.data(), &length, sizeof(length));
    ASSERT_TRUE(WriteAll(stream, frame + text, deadline, "writing").ok());
    std::array<char, kFramePrefixBytes> prefix{};
    ASSERT_TRUE(ReadAll(stream, prefix, deadline, "reading").ok());
    std::string answer(*FrameLength({prefix.data(), prefix.size()}), '\0');
    ASSERT_TRUE(ReadAll(stream, answer, deadline, "reading").ok());
    EXPECT_THAT(answer, HasSubstr("refused")) << text;
  }
}

TEST(Control, OnlyWhoKnowsTheSecretGetsAWelcome) {
  const auto secret = std::make_shared<const Security>("a secret of the cluster", nullptr);
  const Security other("another cluster's secret", nullptr);
  Node node(secret);
  for (const Security* wrong : {&other, static_cast<const Security*>(nullptr)}) {
    const auto client =
        ControlClient::Connect("127.0.0.1", node.port(), MakeHello(), kTimeout, wrong);
    EXPECT_EQ(client.status().code(), Code::kFailedPrecondition);
    EXPECT_THAT(client.status().message(), HasSubstr("secret"));
  }
  EXPECT_TRUE(
      ControlClient::Connect("127.0.0.1", node.port(), MakeHello(), kTimeout, secret.get()).ok());
}

TEST(Control, WelcomeAndTheSignOfLifeWorkOverTls) {
  const auto security = TlsSecurity(true);
  Node node(security);
  std::vector<std::unique_ptr<ControlClient>> clients;
  for (int i = 0; i < 10; ++i) {
    auto client =
        ControlClient::Connect("127.0.0.1", node.port(), MakeHello(), kTimeout, security.get());
    ASSERT_TRUE(client.ok()) << client.status().ToString();
    EXPECT_EQ((*client)->welcome().member, "m0");
    clients.push_back(std::move(*client));
    // Whatever TLS itself has to say after a welcome has come by the next client's.
    for (const auto& one : clients) ASSERT_FALSE(one->Lost()) << "although the node lives";
  }
  clients.pop_back();
  EXPECT_TRUE(node.WaitGone(1));
  node.started = Unavailable("closed");
  for (const auto& one : clients) EXPECT_TRUE(LostInTime(*one));
  EXPECT_TRUE(node.WaitGone(10));
}

TEST(Control, TlsThatDoesNotFitIsRefusedNamingTheNode) {
  const auto ours = TlsSecurity(true);
  const auto stranger =
      TlsSecurity(true, Certificates::Get().stranger, Certificates::Get().ours.certificate);
  Node node(ours), plain;
  const auto connect = [](Node& to, const Security* security) {
    const Status status =
        ControlClient::Connect("127.0.0.1", to.port(), MakeHello(), kTimeout, security).status();
    EXPECT_THAT(status.message(), HasSubstr("127.0.0.1:" + std::to_string(to.port())));
    return status.message();
  };
  EXPECT_THAT(connect(node, stranger.get()), HasSubstr("refuses this process' certificate"));
  EXPECT_THAT(connect(node, nullptr), HasSubstr("is it off there as well"));
  EXPECT_THAT(connect(plain, ours.get()), HasSubstr("is it on there as well"));
}

TEST(Control, AServerThatRanOutOfDescriptorsServesAgain) {
  Node node;
  const auto before = node.Connect();
  ASSERT_TRUE(before.ok());
  {
    FewDescriptors few;
    few.TakeAll();
    few.Release(1);
    RawSocket stranger(node.port());  // takes the last
    ASSERT_TRUE(stranger.connected());
    EXPECT_FALSE((*before)->Lost());
  }
  EXPECT_TRUE(node.Connect().ok());
  EXPECT_FALSE((*before)->Lost());
}

TEST(Control, ManyConnectionsThatOnlyConnectDoNotStopAHello) {
  Node node;
  std::vector<std::unique_ptr<RawSocket>> idle;
  for (int i = 0; i < 200; ++i) idle.push_back(std::make_unique<RawSocket>(node.port()));
  EXPECT_TRUE(node.Connect().ok());
}

TEST(Control, ManyThatFallSilentAfterAValidOpeningDoNotStopAHello) {
  Node node;
  std::vector<std::unique_ptr<RawSocket>> silent;
  for (int i = 0; i < 1000; ++i) {
    silent.push_back(std::make_unique<RawSocket>(node.port()));
    silent.back()->Send(
        Challenge::Dial(ChallengePurpose::kControl, "", "", RandomEndpointId(), {}).TakeOutput());
    if (i % 100 == 99) {
      EXPECT_TRUE(node.Connect().ok()) << i;
    }
  }
}

TEST(Control, ManyThatFallSilentBeforeTheirHelloDoNotStopAHello) {
  Node node;
  const auto before = node.Connect();
  ASSERT_TRUE(before.ok());
  std::vector<TcpStream> silent;
  for (size_t i = 0; i < kControlConnectionsMax + 100; ++i) {
    const TimePoint deadline = Clock::Real().Now() + kTimeout;
    auto stream = DialTcp("127.0.0.1", node.port(), deadline);
    ASSERT_TRUE(stream.ok()) << i << stream.status().ToString();
    silent.push_back(std::move(*stream));
    ASSERT_TRUE(Introduce(silent.back(), Security(), ChallengePurpose::kControl, RandomEndpointId(),
                          EndpointId{}, deadline)
                    .ok())
        << i;
  }
  EXPECT_TRUE(node.Connect().ok());
  EXPECT_FALSE((*before)->Lost()) << "a client that was welcomed does not give way";
}

TEST(Control, MutatedHellosNeverPassAsSomethingElse) {
  Rng rng(11);
  const std::string good = HelloFrame(MakeHello()).substr(kFramePrefixBytes);
  ASSERT_TRUE(ParseHello(good).ok());
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (uint64_t i = 0; i <= rng.NextBelow(3); ++i) {
      text[rng.NextBelow(text.size())] = static_cast<char>(rng.NextU64());
    }
    const Result<Hello> hello = ParseHello(text);
    if (hello.ok()) {
      EXPECT_EQ(hello->protocol, kControlProtocol);
    }
    EXPECT_FALSE(ParseAnswer(text).ok());
  }
}

}  // namespace
}  // namespace engram::net
