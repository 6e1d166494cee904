#include "common/net/tcp/dial.h"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace engram::net {
namespace {

Status SystemError(std::string_view step, int error) {
  return Unavailable(fmt::format("{}: {}", step, std::strerror(error)));
}

// Waits for `events` on the socket until `deadline`.
Status PollUntil(int fd, short events, TimePoint deadline, std::string_view step) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::Real().Now());
    if (left.count() <= 0) return DeadlineExceeded(fmt::format("{}: no answer in time", step));
    pollfd entry = {fd, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    if (ready > 0) return OkStatus();
    if (ready < 0 && errno != EINTR) return SystemError(step, errno);
  }
}

Result<TcpStream> ConnectOne(const addrinfo& where, TimePoint deadline) {
  TcpStream stream(::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (stream.fd() < 0) return SystemError("socket", errno);
  stream.SetNoDelay();
  if (::connect(stream.fd(), where.ai_addr, where.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return SystemError("connect", errno);
    RETURN_IF_ERROR(PollUntil(stream.fd(), POLLOUT, deadline, "connect"));
    int error = 0;
    socklen_t length = sizeof(error);
    ::getsockopt(stream.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return SystemError("connect", error);
  }
  return stream;
}

Status HandshakeTls(TcpStream& stream, TimePoint deadline) {
  while (true) {
    switch (stream.HandshakeTls()) {
      case TlsSession::Step::kDone:
        return OkStatus();
      case TlsSession::Step::kReads:
        RETURN_IF_ERROR(PollUntil(stream.fd(), POLLIN, deadline, "TLS handshake"));
        break;
      case TlsSession::Step::kWrites:
        RETURN_IF_ERROR(PollUntil(stream.fd(), POLLOUT, deadline, "TLS handshake"));
        break;
      case TlsSession::Step::kFailed:
        return stream.why();
    }
  }
}

}  // namespace

Result<TcpStream> DialTcp(const std::string& host, uint16_t port, TimePoint deadline) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) return Unavailable(fmt::format("host \"{}\": {}", host, ::gai_strerror(error)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, &::freeaddrinfo);
  Status last = Unavailable(fmt::format("host \"{}\" has no address", host));
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    Result<TcpStream> stream = ConnectOne(*entry, deadline);
    if (stream.ok()) return stream;
    last = stream.status();
  }
  return last;
}

Status Introduce(TcpStream& stream, const Security& security, ChallengePurpose purpose,
                 const EndpointId& own, const EndpointId& wanted, TimePoint deadline) {
  RETURN_IF_ERROR(stream.StartTls(security, true));
  const Status handshaken = HandshakeTls(stream, deadline);
  if (!handshaken.ok()) {
    return handshaken.code() == Code::kFailedPrecondition
               ? handshaken
               : handshaken.WithContext(
                     "TLS is on here; is it on there as well (security.tls_certificate)?");
  }
  Challenge challenge =
      Challenge::Dial(purpose, security.secret(), stream.TlsChannel(), own, wanted);
  std::string message;
  bool answered = false;
  while (true) {
    RETURN_IF_ERROR(WriteAll(stream, challenge.TakeOutput(), deadline, "challenge"));
    if (challenge.done()) return OkStatus();
    message.resize(challenge.wanted_bytes());
    const Status read = ReadAll(stream, message, deadline, "challenge");
    // A TLS server ends such a connection without a word.
    if (read.code() == Code::kUnavailable && !answered && !security.tls()) {
      return read.WithContext(
          "TLS is off here; is it off there as well (security.tls_certificate)?");
    }
    if (read.code() == Code::kDeadlineExceeded && !answered) {
      return read.WithContext(
          "it accepts connections and says nothing: stopped, overloaded, or no port of a memory "
          "node");
    }
    RETURN_IF_ERROR(read);
    answered = true;
    RETURN_IF_ERROR(challenge.Consume(message));
  }
}

Status WriteAll(TcpStream& stream, std::string_view bytes, TimePoint deadline,
                std::string_view step) {
  while (!bytes.empty()) {
    const iovec piece = {const_cast<char*>(bytes.data()), bytes.size()};
    const ssize_t sent = stream.Send({&piece, 1});
    if (sent < 0) return stream.why().WithContext(step);
    if (sent == 0) RETURN_IF_ERROR(PollUntil(stream.fd(), POLLOUT, deadline, step));
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return OkStatus();
}

Status ReadAll(TcpStream& stream, std::span<char> bytes, TimePoint deadline,
               std::string_view step) {
  while (!bytes.empty()) {
    const ssize_t received = stream.Receive(std::as_writable_bytes(bytes));
    if (received < 0) return stream.why().WithContext(step);
    if (received == 0) RETURN_IF_ERROR(PollUntil(stream.fd(), POLLIN, deadline, step));
    bytes = bytes.subspan(static_cast<size_t>(received));
  }
  return OkStatus();
}

}  // namespace engram::net
