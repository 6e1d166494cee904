// What makes a peer over TCP: addresses, arrivals, secrets, certificates; and peers that are killed
// or stopped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/common/net/tcp/harness.h"

namespace engram::net {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr Nanos kSoon = std::chrono::milliseconds(30);

TEST(TcpPeers, GarbledAddressesAreInvalid) {
  const auto transport = MakeDialer();
  const std::string id(32, 'a');
  for (const std::string& bad :
       {std::string(), std::string("tcp"), "tcp " + id.substr(1), "tcp " + id + "a", "ucx " + id,
        "tcp " + id + " host", "tcp " + id + " host 0", "tcp " + id + " host 65536",
        "tcp " + id + " host 1x", "tcp " + id + " host -1", "tcp " + id + "  1",
        "tcp " + id + " host 1 more", "tcp " + std::string(32, 'g'), " tcp " + id,
        "tcp " + id + " ", "tcp " + id + " " + std::string(254, 'h') + " 1",
        std::string("\0\xff\n", 3)}) {
    EXPECT_EQ(transport->Connect(bad).status().code(), Code::kInvalidArgument) << bad;
    EXPECT_EQ(WithHost(bad, "other"), bad);
  }
}

TEST(TcpPeers, AddressesComeBackAsTheyWere) {
  TcpAddress address;
  address.id = RandomEndpointId();
  EXPECT_EQ(ParseTcpAddress(FormatTcpAddress(address))->id, address.id);
  EXPECT_EQ(ParseTcpAddress(FormatTcpAddress(address))->port, 0);
  address.host = "fe80::1";
  address.port = 65'535;
  const auto parsed = ParseTcpAddress(FormatTcpAddress(address));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->id, address.id);
  EXPECT_EQ(parsed->host, "fe80::1");
  EXPECT_EQ(parsed->port, 65'535);
  EXPECT_EQ(WithHost(FormatTcpAddress(address), "other"), FormatTcpAddress(address));
}

TEST(TcpPeers, ConnectingTwiceToOneselfOrWithoutAListenerIsRefused) {
  Pair pair;
  for (const auto& [from, to] : {std::pair{pair.acceptor.get(), pair.dialer.get()},
                                 {pair.dialer.get(), pair.acceptor.get()},
                                 {pair.dialer.get(), pair.dialer.get()},
                                 {pair.acceptor.get(), pair.acceptor.get()}}) {
    EXPECT_EQ(from->Connect(to->address()).status().code(), Code::kAlreadyExists);
  }
  const auto other = MakeDialer();
  EXPECT_THAT(pair.dialer->Connect(other->address()).status().message(), HasSubstr("listens"));
}

// A node's thread would wait for a port that takes connections and never answers.
TEST(TcpPeers, AListenerDialsNoClient) {
  Pair pair;
  const auto silent = MakeAcceptor();  // no thread drives it
  const TimePoint begin = Clock::Real().Now();
  const auto refused = pair.acceptor->Connect(silent->address());
  EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("to be dialled"));
  EXPECT_LT(Clock::Real().Now() - begin, std::chrono::seconds(4)) << "it was dialled";
}

TEST(TcpPeers, MessagesOverTheLimitsOrToNobodyAreRefused) {
  Pair pair;
  const std::vector<std::byte> header(kHeaderBytesMax + 1);
  auto buffer = *pair.dialer->AllocateSendBuffer(kBodyBytesMax + 1);
  const auto never = [](const Status&) { ADD_FAILURE() << "told of a message that was refused"; };
  EXPECT_EQ(pair.dialer->Send(pair.to_acceptor, header, nullptr, 0, never).code(),
            Code::kResourceExhausted);
  EXPECT_EQ(pair.dialer->Send(pair.to_acceptor, {}, buffer.get(), kBodyBytesMax + 1, never).code(),
            Code::kResourceExhausted);
  EXPECT_EQ(pair.dialer->Send(pair.to_acceptor + 1, {}, nullptr, 0, never).code(),
            Code::kUnavailable);
  pair.dialer->Disconnect(pair.to_acceptor + 1);
  EXPECT_TRUE(pair.dialer->Send(pair.to_acceptor, {}, nullptr, 0, {}).ok());
}

TEST(TcpPeers, AnEveryAddressListenerIsReachedByTheHostOfItsControlConnection) {
  TcpOptions options;
  options.listen_host = "0.0.0.0";
  End acceptor(MakeTcp(options));
  End dialer(MakeDialer());
  EXPECT_THAT(acceptor->address(), HasSubstr(" * "));
  ASSERT_TRUE(acceptor->Connect(dialer->address()).ok());
  const auto dialed =
      Dial(*dialer.transport, WithHost(acceptor->address(), "127.0.0.1"), *acceptor.transport);
  EXPECT_TRUE(dialed.ok()) << dialed.status().ToString();
}

TEST(TcpPeers, V6IsReached) {
  TcpOptions options;
  options.listen_host = "::1";
  auto made = MakeTcpTransport(options);
  if (!made.ok()) GTEST_SKIP() << made.status().ToString();
  End acceptor(std::move(*made));
  End dialer(MakeDialer());
  ASSERT_TRUE(acceptor->Connect(dialer->address()).ok());
  const auto dialed = Dial(*dialer.transport, *acceptor.transport);
  EXPECT_TRUE(dialed.ok()) << dialed.status().ToString();
}

TEST(TcpPeers, APortInUseAndAHostOfOthersAreNamed) {
  const auto first = MakeAcceptor();
  TcpOptions options;
  options.listen_host = "127.0.0.1";
  options.listen_port = ParseTcpAddress(first->address())->port;
  const auto second = MakeTcpTransport(options);
  EXPECT_EQ(second.status().code(), Code::kAlreadyExists);
  EXPECT_THAT(second.status().message(), HasSubstr(std::to_string(options.listen_port)));
  options.listen_host = "192.0.2.1";  // for documentation: no host's
  const auto third = MakeTcpTransport(options);
  EXPECT_EQ(third.status().code(), Code::kUnavailable);
  EXPECT_THAT(third.status().message(), HasSubstr("192.0.2.1"));
}

TEST(TcpPeers, OneThatNeverArrivesIsReportedAlthoughWaitIsLong) {
  End acceptor(MakeAcceptor({}, kSoon));
  const PeerId peer = *acceptor->Connect(MakeDialer()->address());
  EXPECT_EQ(acceptor->Send(peer, {}, nullptr, 0, {}).code(), Code::kUnavailable);
  while (acceptor.told.lost.empty()) {
    if (acceptor->Progress() == 0) acceptor->Wait(std::chrono::minutes(5));
  }
  EXPECT_EQ(acceptor.told.lost[0].first, peer);
  EXPECT_EQ(acceptor.told.lost[0].second.code(), Code::kUnavailable);
  EXPECT_THAT(acceptor.told.lost[0].second.message(), HasSubstr("in time"));
}

TEST(TcpPeers, OneThatIsNotExpectedIsToldSo) {
  End acceptor(MakeAcceptor());
  const auto never = Dial(*MakeDialer(), *acceptor.transport);
  EXPECT_EQ(never.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(never.status().message(), HasSubstr("does not expect"));
  End dialer(MakeDialer());
  acceptor->Disconnect(*acceptor->Connect(dialer->address()));
  EXPECT_THAT(Dial(*dialer.transport, *acceptor.transport).status().message(),
              HasSubstr("does not expect"));
  EXPECT_TRUE(acceptor.told.messages.empty() && acceptor.told.lost.empty());
}

TEST(TcpPeers, NobodyListeningASilentListenerAndAnotherProcessAreToldApart) {
  TcpAddress address = *ParseTcpAddress(MakeAcceptor()->address());  // is gone
  const auto refused = MakeDialer()->Connect(FormatTcpAddress(address));
  EXPECT_EQ(refused.status().code(), Code::kUnavailable);
  EXPECT_THAT(refused.status().message(),
              AllOf(HasSubstr("127.0.0.1:" + std::to_string(address.port)), HasSubstr("refused")));
  const auto silent = MakeAcceptor();  // no thread drives it
  EXPECT_EQ(MakeDialer({}, kSoon)->Connect(silent->address()).status().code(),
            Code::kDeadlineExceeded);
  const auto other = MakeAcceptor();
  address.port = ParseTcpAddress(other->address())->port;
  const auto restarted = Dial(*MakeDialer(), FormatTcpAddress(address), *other);
  EXPECT_EQ(restarted.status().code(), Code::kUnavailable);
  EXPECT_THAT(restarted.status().message(), HasSubstr("restarted"));
}

// How two ends that do not fit fail at the one that dials.
Status Refusal(const std::shared_ptr<const Security>& accepts,
               const std::shared_ptr<const Security>& dials) {
  End acceptor(MakeAcceptor(accepts)), dialer(MakeDialer(dials));
  CHECK(acceptor->Connect(dialer->address()).ok());
  const Status status = Dial(*dialer.transport, *acceptor.transport).status();
  EXPECT_TRUE(acceptor.told.messages.empty() && acceptor.told.lost.empty());
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
  return status;
}

TEST(TcpPeers, AnotherSecretIsRefusedWithWhatToDo) {
  const auto ours = SecretSecurity("the secret of our cluster");
  const auto none = SecretSecurity("");
  struct Case {
    std::shared_ptr<const Security> accepts, dials;
    std::string says;
  };
  for (const auto& [accepts, dials, says] :
       {Case{ours, SecretSecurity("the secret of another"), "same secret file"},
        Case{ours, none, "requires a secret"}, Case{none, ours, "the other side has no secret"}}) {
    const Status status = Refusal(accepts, dials);
    EXPECT_EQ(status.code(), Code::kFailedPrecondition);
    EXPECT_THAT(status.message(), AllOf(HasSubstr("127.0.0.1:"), HasSubstr(says)));
  }
  Pair pair(ours);
}

TEST(TcpPeers, ACertificateOfAnotherAuthorityIsRefusedByEitherSide) {
  const Certificates& all = Certificates::Get();
  const auto ours = TlsSecurity(true);
  // Signed by others, but trusting us: only the other side has something against it.
  const auto stranger = TlsSecurity(true, all.stranger, all.ours.certificate);
  for (int i = 0; i < 10; ++i) {
    const Status at_dialer = Refusal(ours, stranger);
    EXPECT_THAT(at_dialer.message(), HasSubstr("refuses this process' certificate"));
    EXPECT_EQ(at_dialer.code(), Code::kFailedPrecondition);
  }
  const Status at_acceptor = Refusal(stranger, ours);
  EXPECT_EQ(at_acceptor.code(), Code::kFailedPrecondition);
  EXPECT_THAT(at_acceptor.message(), HasSubstr("the peer's certificate is not of this cluster"));
}

TEST(TcpPeers, TlsOnOneSideOnlyIsNamed) {
  const auto tls = TlsSecurity(true);
  const Status dials = Refusal({}, tls);
  EXPECT_THAT(dials.message(), HasSubstr("is it on there as well"));
  const Status accepts = Refusal(tls, {});
  EXPECT_THAT(accepts.message(), HasSubstr("is it off there as well (security.tls_certificate)?"));
  EXPECT_NE(MakeDialer()->settings(), MakeDialer(tls)->settings());
}

// The child's life: connects to the parent, then answers every message until it is killed.
[[noreturn]] void RunChild(int from_parent, int to_parent) {
  ::alarm(60);
  End end(MakeDialer());
  const std::string own = end->address();
  char address[512];
  if (::write(to_parent, own.data(), own.size()) < 0) ::_exit(1);
  const ssize_t size = ::read(from_parent, address, sizeof(address));
  const auto parent = end->Connect({address, static_cast<size_t>(std::max<ssize_t>(size, 0))});
  if (!parent.ok()) ::_exit(1);
  while (end.told.lost.empty()) {
    if (end->Progress() == 0) end->Wait(std::chrono::milliseconds(100));
    for (; !end.told.messages.empty(); end.told.messages.pop_front()) {
      (void)end->Send(*parent, end.told.messages.front().header, nullptr, 0, {});
    }
  }
  ::_exit(0);
}

struct ChildPeer {
  ChildPeer() : acceptor(MakeAcceptor()) {
    int to_child[2], to_parent[2];
    CHECK(::pipe(to_child) == 0 && ::pipe(to_parent) == 0);
    pid = ::fork();
    CHECK_GE(pid, 0);
    if (pid == 0) RunChild(to_child[0], to_parent[1]);
    char address[512];
    const ssize_t size = ::read(to_parent[0], address, sizeof(address));
    CHECK_GT(size, 0);
    peer = *acceptor->Connect({address, static_cast<size_t>(size)});
    const std::string own = acceptor->address();
    CHECK_EQ(::write(to_child[1], own.data(), own.size()), static_cast<ssize_t>(own.size()));
    for (const int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) ::close(fd);
    CHECK(RunUntil({acceptor.get()},
                   [&] { return acceptor->Send(peer, NumberedHeader(1), nullptr, 0, {}).ok(); }));
    CHECK(RunUntil({acceptor.get()}, [&] { return !acceptor.told.messages.empty(); }));
    acceptor.told.messages.clear();
  }
  ~ChildPeer() {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  End acceptor;
  PeerId peer = 0;
  pid_t pid = 0;
};

TEST(TcpPeers, AKilledOneIsReported) {
  ChildPeer child;
  ::kill(child.pid, SIGKILL);
  ASSERT_TRUE(RunUntil({child.acceptor.get()}, [&] { return !child.acceptor.told.lost.empty(); }));
  EXPECT_EQ(child.acceptor.told.lost[0].first, child.peer);
  EXPECT_EQ(child.acceptor.told.lost[0].second.code(), Code::kUnavailable);
  EXPECT_EQ(child.acceptor->Send(child.peer, {}, nullptr, 0, {}).code(), Code::kUnavailable);
}

TEST(TcpPeers, AStoppedOneIsNotReportedAndGoesOn) {
  ChildPeer child;
  ::kill(child.pid, SIGSTOP);
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid, &status, WUNTRACED), child.pid);
  ASSERT_TRUE(WIFSTOPPED(status));
  for (uint64_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(child.acceptor->Send(child.peer, NumberedHeader(i), nullptr, 0, {}).ok());
    child.acceptor->Wait(std::chrono::milliseconds(5));
    child.acceptor->Progress();
  }
  EXPECT_TRUE(child.acceptor.told.lost.empty());
  EXPECT_TRUE(child.acceptor.told.messages.empty());
  ::kill(child.pid, SIGCONT);
  EXPECT_TRUE(
      RunUntil({child.acceptor.get()}, [&] { return child.acceptor.told.messages.size() == 20; }));
  EXPECT_TRUE(child.acceptor.told.lost.empty());
}

}  // namespace
}  // namespace engram::net
