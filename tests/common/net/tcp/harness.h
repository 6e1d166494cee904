// TCP transports for tests: pairs of them in one process, with and without TLS, and what they were
// told.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/rng.h"
#include "common/net/tcp/address.h"
#include "common/net/tcp/transport.h"
#include "tests/support/certificates.h"
#include "tests/support/process.h"

namespace engram::net {

inline constexpr auto kTestTimeout = std::chrono::seconds(20);

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

// Drives all until `done` holds; false when it never did.
template <typename Done>
bool RunUntil(std::initializer_list<Transport*> transports, Done done) {
  const TimePoint deadline = Clock::Real().Now() + kTestTimeout;
  while (!done()) {
    if (Clock::Real().Now() > deadline) return false;
    for (Transport* transport : transports) transport->Progress();
  }
  return true;
}

// Two authorities, and a process' certificate of each; made once for a test program.
struct Certificates {
  Certificates() : folder(testing_support::MakeTempDir("tls")) {
    ours = testing_support::MakeAuthority(folder, "our-authority");
    others = testing_support::MakeAuthority(folder, "other-authority");
    node = testing_support::MakeCertificate(folder, "node", ours);
    stranger = testing_support::MakeCertificate(folder, "stranger", others);
  }
  ~Certificates() { std::filesystem::remove_all(folder); }
  static const Certificates& Get() {
    static const Certificates certificates;
    return certificates;
  }
  std::string folder;
  testing_support::CertificateFiles ours, others, node, stranger;
};

// TLS, and only with certificates of our authority when `authority` says so.
inline std::shared_ptr<const Security> TlsSecurity(
    bool authority, const testing_support::CertificateFiles& own = Certificates::Get().node,
    const std::string& ca = Certificates::Get().ours.certificate) {
  SecurityOptions options;
  options.tls_certificate = own.certificate;
  options.tls_key = own.key;
  if (authority) options.tls_ca = ca;
  auto security = LoadSecurity(options);
  CHECK(security.ok()) << security.status().ToString();
  return *security;
}

inline std::shared_ptr<const Security> SecretSecurity(const std::string& secret) {
  return std::make_shared<const Security>(secret, nullptr);
}

inline std::unique_ptr<Transport> MakeTcp(TcpOptions options) {
  auto transport = MakeTcpTransport(options);
  CHECK(transport.ok()) << transport.status().ToString();
  return std::move(*transport);
}

inline std::unique_ptr<Transport> MakeAcceptor(std::shared_ptr<const Security> security = {},
                                               Nanos connect_timeout = kTestTimeout) {
  TcpOptions options;
  options.listen_host = "127.0.0.1";
  options.security = std::move(security);
  options.connect_timeout = connect_timeout;
  return MakeTcp(options);
}

inline std::unique_ptr<Transport> MakeDialer(std::shared_ptr<const Security> security = {},
                                             Nanos connect_timeout = kTestTimeout) {
  TcpOptions options;
  options.security = std::move(security);
  options.connect_timeout = connect_timeout;
  return MakeTcp(options);
}

// Dials while the acceptor is driven.
inline Result<PeerId> Dial(Transport& dialer, const std::string& address, Transport& acceptor) {
  std::atomic<bool> done = false;
  Result<PeerId> peer = Unavailable("not yet");
  std::thread thread([&] {
    peer = dialer.Connect(address);
    done = true;
    acceptor.WakeUp();
  });
  while (!done) {
    if (acceptor.Progress() == 0) acceptor.Wait(std::chrono::milliseconds(20));
  }
  thread.join();
  return peer;
}

inline Result<PeerId> Dial(Transport& dialer, Transport& acceptor) {
  return Dial(dialer, acceptor.address(), acceptor);
}

// A transport with what it was told.
struct End {
  explicit End(std::unique_ptr<Transport> made) : transport(std::move(made)) {
    transport->SetHandler(&told);
  }
  Transport* operator->() const { return transport.get(); }
  Transport* get() const { return transport.get(); }
  Recorder told;
  std::unique_ptr<Transport> transport;
};

// An acceptor and a dialer that have found each other.
struct Pair {
  explicit Pair(const std::shared_ptr<const Security>& security = {})
      : acceptor(MakeAcceptor(security)), dialer(MakeDialer(security)) {
    to_dialer = *acceptor->Connect(dialer->address());
    auto dialed = Dial(*dialer.transport, *acceptor.transport);
    CHECK(dialed.ok()) << dialed.status().ToString();
    to_acceptor = *dialed;
    // The dialer's proof may have arrived after the acceptor's last look.
    CHECK(RunUntil({acceptor.get()},
                   [&] { return acceptor->Send(to_dialer, {}, nullptr, 0, {}).ok(); }));
    CHECK(RunUntil({dialer.get()}, [&] { return !dialer.told.messages.empty(); }));
    dialer.told.messages.clear();
  }
  template <typename Done>
  bool Run(Done done) {
    return RunUntil({acceptor.get(), dialer.get()}, done);
  }
  End acceptor, dialer;
  PeerId to_dialer = 0, to_acceptor = 0;
};

inline std::vector<std::byte> RandomBytes(Rng& rng, size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.NextU64());
  return bytes;
}

// A header that says which message of its sender it is, and reads it back.
inline std::vector<std::byte> NumberedHeader(uint64_t number) {
  std::vector<std::byte> header(sizeof(number));
  std::memcpy(header.data(), &number, sizeof(number));
  return header;
}
inline uint64_t NumberOf(std::span<const std::byte> header) {
  uint64_t number = UINT64_MAX;
  if (header.size() == sizeof(number)) std::memcpy(&number, header.data(), sizeof(number));
  return number;
}

}  // namespace engram::net
