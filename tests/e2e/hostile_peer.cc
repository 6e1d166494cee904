#include "tests/e2e/hostile_peer.h"

#include <cstring>

#include "common/net/tcp/challenge.h"

namespace engram::testing_support {
namespace {

constexpr size_t kManyBytes = 64 * 1024;
constexpr int kAnswerMs = 2000;
constexpr int kQuietMs = 2;  // for an answer that is thrown away

std::string LengthPrefix(uint32_t length) {
  std::string prefix(sizeof(length), '\0');
  std::memcpy(prefix.data(), &length, sizeof(length));
  return prefix;
}

// Requests that are HTTP's own, and wrong ones; to other ports they are just text.
std::vector<std::string> HttpRequests() {
  std::string pipelined;
  for (int i = 0; i < 500; ++i) pipelined += "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
  return {"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
          "GET /" + std::string(kManyBytes, 'a') + " HTTP/1.1\r\n\r\n",
          "POST /health HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nabc",
          "POST /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
          "GET /health HTTP/9.9\r\n\r\n",
          "GET /health HTTP/1.1\r\n" + std::string(kManyBytes, 'h'),
          "\r\n\r\n\r\n\r\n",
          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  // a TLS hello's start
          pipelined};
}

// The challenge of a control connection, without a secret. False when the node hangs up.
bool Introduce(RawConnection& connection) {
  net::Challenge challenge =
      net::Challenge::Dial(net::ChallengePurpose::kControl, "", "", net::RandomEndpointId(), {});
  while (true) {
    if (!connection.Send(challenge.TakeOutput())) return false;
    if (challenge.done()) return true;
    const std::string message = connection.ReceiveExactly(challenge.wanted_bytes(), kAnswerMs);
    if (message.size() < challenge.wanted_bytes() || !challenge.Consume(message).ok()) return false;
  }
}

}  // namespace

std::string HostilePeer::RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng_.NextU64());
  return bytes;
}

std::string HostilePeer::Damaged(std::string bytes) {
  for (uint64_t i = 1 + rng_.NextBelow(4); i > 0 && !bytes.empty(); --i) {
    bytes[rng_.NextBelow(bytes.size())] = static_cast<char>(rng_.NextU64());
  }
  return bytes;
}

void HostilePeer::Throw(const Listener& at, const std::string& bytes) {
  ThrowAt(RawConnection(at), bytes);
}

void HostilePeer::ThrowAt(RawConnection connection, const std::string& bytes) {
  if (!connection.connected()) return;
  ++connections_made_;
  connection.Send(bytes);
  switch (rng_.NextBelow(3)) {
    case 0:
      connection.EndSending();
      connection.Receive(kQuietMs);
      break;
    case 1:
      connection.Receive(kQuietMs);
      break;
    default:
      connection.Reset();
  }
}

void HostilePeer::ThrowBytes(const Listener& at) {
  for (const size_t size : {1ul, 3ul, 4ul, 8ul, 16ul, 100ul, 5000ul, kManyBytes}) {
    for (const char byte : {'\0', '\xff', 'G'}) Throw(at, std::string(size, byte));
    for (int i = 0; i < 4; ++i) Throw(at, RandomBytes(size));
  }
  for (const uint32_t length : {0u, 1u, 0x100000u, 0x100001u, 0x7fffffffu, 0x80000000u, ~0u}) {
    Throw(at, LengthPrefix(length));
    Throw(at, LengthPrefix(length) + RandomBytes(300));
    Throw(at, LengthPrefix(length) + std::string(300, '{'));
    Throw(at, LengthPrefix(length) + LengthPrefix(length) + RandomBytes(kManyBytes));
  }
  for (const std::string& request : HttpRequests()) Throw(at, request);
  for (const std::string& opening : openings_) {
    for (int i = 0; i < 20; ++i) {
      Throw(at, opening.substr(0, rng_.NextBelow(opening.size())));
      Throw(at, Damaged(opening));
      Throw(at, opening + RandomBytes(1 + rng_.NextBelow(kManyBytes)));
    }
    Throw(at, opening + opening);
  }
  for (int i = 0; i < 100; ++i) {
    RawConnection connection(at);
    connection.Reset();
  }
}

int HostilePeer::ThrowHellos(const Listener& at, const std::vector<std::string>& hello_frames) {
  int introduced = 0;
  const auto say = [&](const std::string& bytes) {
    RawConnection connection(at);
    if (!Introduce(connection)) return;
    ++introduced;
    ThrowAt(std::move(connection), bytes);
  };
  for (const std::string& hello : hello_frames) {
    say(hello);
    say(hello + hello);
    for (int i = 0; i < 15; ++i) {
      say(hello.substr(0, rng_.NextBelow(hello.size())));
      say(Damaged(hello));
      say(hello + RandomBytes(1 + rng_.NextBelow(kManyBytes)));
    }
  }
  for (const uint32_t length : {0u, 1u, 0x100000u, 0x100001u, ~0u}) {
    say(LengthPrefix(length) + std::string(300, '['));
    say(LengthPrefix(length) + RandomBytes(kManyBytes));
  }
  // As deep as a parser may be made to go.
  say(LengthPrefix(1 << 20) + std::string(1 << 20, '['));
  return introduced;
}

void HostilePeer::ThrowDatagrams(const Listener& at) {
  RawConnection connection(at);
  for (const size_t size : {0ul, 1ul, 8ul, 64ul, 1400ul, 9000ul, 60000ul}) {
    for (int i = 0; i < 10; ++i) connection.Send(RandomBytes(size));
    connection.Send(std::string(size, '\xff'));
  }
  for (const std::string& opening : openings_) connection.Send(Damaged(opening));
}

void HostilePeer::HoldUnfinishedFrames(const Listener& at, int count, bool introduced) {
  constexpr uint32_t kLength = 1 << 20;
  const std::string bytes = LengthPrefix(kLength) + std::string(kLength - 1, '[');
  for (int i = 0; i < count; ++i) {
    held_.emplace_back(at);
    if (introduced && !Introduce(held_.back())) continue;
    if (held_.back().Send(bytes)) ++connections_made_;
  }
}

int HostilePeer::HoldIdle(const Listener& at, int count) {
  int made = 0;
  for (int i = 0; i < count; ++i) {
    RawConnection connection(at);
    if (!connection.connected()) break;  // the backlog is full: the node is not to blame
    ++made;
    held_.push_back(std::move(connection));
  }
  connections_made_ += static_cast<uint64_t>(made);
  return made;
}

void HostilePeer::StartDripping(const Listener& at) {
  std::vector<std::string> messages = openings_;
  messages.push_back(HttpRequests().front());
  messages.push_back(RandomBytes(200));
  for (const std::string& message : messages) {
    dripping_.push_back({RawConnection(at), message});
    if (dripping_.back().connection.connected()) ++connections_made_;
  }
}

void HostilePeer::Drip() {
  for (Dripping& one : dripping_) {
    if (one.sent < one.bytes.size()) one.connection.Send(one.bytes.substr(one.sent++, 1));
  }
}

void HostilePeer::LetGo() {
  held_.clear();
  dripping_.clear();
}

}  // namespace engram::testing_support
