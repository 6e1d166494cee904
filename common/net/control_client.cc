// The client's side of the control connection: plain blocking sockets with a deadline over
// everything.
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>

#include "common/net/control.h"
#include "common/net/control_messages.h"

namespace engram::net {
namespace {

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

Status TimedOut(std::string_view step) {
  return DeadlineExceeded(fmt::format("{}: no answer in time", step));
}

Status SystemError(std::string_view step, int error) {
  return Unavailable(fmt::format("{}: {}", step, std::strerror(error)));
}

// Waits for `events` on the socket until `deadline`.
Status PollUntil(int fd, short events, TimePoint deadline, std::string_view step) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::Real().Now());
    if (left.count() <= 0) return TimedOut(step);
    pollfd entry = {fd, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    if (ready > 0) return OkStatus();
    if (ready < 0 && errno != EINTR) return SystemError(step, errno);
  }
}

Result<Socket> ConnectOne(const addrinfo& where, TimePoint deadline) {
  Socket socket(::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.fd() < 0) return SystemError("socket", errno);
  if (::connect(socket.fd(), where.ai_addr, where.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return SystemError("connect", errno);
    RETURN_IF_ERROR(PollUntil(socket.fd(), POLLOUT, deadline, "connect"));
    int error = 0;
    socklen_t length = sizeof(error);
    ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return SystemError("connect", error);
  }
  const int on = 1;
  ::setsockopt(socket.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  return socket;
}

// The first of the host's addresses that answers.
Result<Socket> ConnectAny(const std::string& host, uint16_t port, TimePoint deadline) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) return Unavailable(fmt::format("host \"{}\": {}", host, ::gai_strerror(error)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, &::freeaddrinfo);
  Status last = Unavailable(fmt::format("host \"{}\" has no address", host));
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    Result<Socket> socket = ConnectOne(*entry, deadline);
    if (socket.ok()) return socket;
    last = socket.status();
  }
  return last;
}

Status WriteAll(int fd, std::string_view bytes, TimePoint deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(PollUntil(fd, POLLOUT, deadline, "hello"));
    } else if (errno != EINTR) {
      return SystemError("hello", errno);
    }
  }
  return OkStatus();
}

Status ReadAll(int fd, std::span<char> bytes, TimePoint deadline) {
  while (!bytes.empty()) {
    const ssize_t received = ::recv(fd, bytes.data(), bytes.size(), 0);
    if (received > 0) {
      bytes = bytes.subspan(static_cast<size_t>(received));
    } else if (received == 0) {
      return Unavailable("answer to hello: the connection was closed");
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(PollUntil(fd, POLLIN, deadline, "answer to hello"));
    } else if (errno != EINTR) {
      return SystemError("answer to hello", errno);
    }
  }
  return OkStatus();
}

class SocketControlClient : public ControlClient {
 public:
  SocketControlClient(Socket socket, Welcome welcome)
      : socket_(std::move(socket)), welcome_(std::move(welcome)) {}

  const Welcome& welcome() const override { return welcome_; }
  int fd() const override { return socket_.fd(); }

  // A node has nothing to say after its welcome: bytes end the connection as a close does.
  bool Lost() override {
    if (lost_) return true;
    char byte = 0;
    const ssize_t received = ::recv(socket_.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    lost_ = received >= 0 || (errno != EAGAIN && errno != EINTR);
    return lost_;
  }

 private:
  const Socket socket_;
  const Welcome welcome_;
  bool lost_ = false;
};

Result<std::unique_ptr<ControlClient>> ConnectUntil(const std::string& host, uint16_t port,
                                                    const Hello& hello, TimePoint deadline) {
  ASSIGN_OR_RETURN(Socket socket, ConnectAny(host, port, deadline));
  RETURN_IF_ERROR(WriteAll(socket.fd(), HelloFrame(hello), deadline));
  std::array<char, kFramePrefixBytes> prefix{};
  RETURN_IF_ERROR(ReadAll(socket.fd(), prefix, deadline));
  ASSIGN_OR_RETURN(const uint32_t length, FrameLength({prefix.data(), prefix.size()}));
  std::string text(length, '\0');
  RETURN_IF_ERROR(ReadAll(socket.fd(), text, deadline));
  ASSIGN_OR_RETURN(Welcome welcome, ParseAnswer(text));
  return std::unique_ptr<ControlClient>(
      std::make_unique<SocketControlClient>(std::move(socket), std::move(welcome)));
}

}  // namespace

Result<std::unique_ptr<ControlClient>> ControlClient::Connect(const std::string& host,
                                                              uint16_t port, const Hello& hello,
                                                              Nanos timeout) {
  auto client = ConnectUntil(host, port, hello, Clock::Real().Now() + timeout);
  if (client.ok()) return client;
  return client.status().WithContext(fmt::format("memory node {}:{}", host, port));
}

Result<HostPort> ParseHostPort(const std::string& text) {
  const auto malformed = [&] {
    return InvalidArgument(
        fmt::format("\"{}\" is not host:port (or [v6 address]:port, port 0..65535)", text));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return malformed();
  HostPort result;
  result.host = text.substr(0, colon);
  const bool bracketed =
      result.host.size() >= 2 && result.host.front() == '[' && result.host.back() == ']';
  if (bracketed) result.host = result.host.substr(1, result.host.size() - 2);
  const bool has_colon = result.host.find(':') != std::string::npos;
  if (result.host.empty() || has_colon != bracketed ||
      result.host.find_first_of(" \t\r\n[]") != std::string::npos) {
    return malformed();
  }
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, result.port);
  if (error != std::errc() || stop != end) return malformed();
  return result;
}

}  // namespace engram::net
