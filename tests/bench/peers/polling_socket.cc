#include "tests/bench/peers/polling_socket.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "tests/bench/harness/machine.h"

namespace engram::bench {
namespace {

constexpr auto kStallMax = std::chrono::seconds(10);

// Counts idle polls and looks at the clock now and then.
class Patience {
 public:
  Status Wait(std::string_view what) {
    if (++polls_ % 4096 != 0) return OkStatus();
    if (Interrupted()) return Cancelled("interrupted");
    const auto now = std::chrono::steady_clock::now();
    if (end_ == std::chrono::steady_clock::time_point()) end_ = now + kStallMax;
    if (now < end_) return OkStatus();
    return DeadlineExceeded(fmt::format("{}: nothing moved for 10 s", what));
  }

 private:
  uint64_t polls_ = 0;
  std::chrono::steady_clock::time_point end_;
};

bool WouldBlock(int error) { return error == EAGAIN || error == EINTR; }

}  // namespace

Result<PollingSocket> PollingSocket::Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Unavailable(fmt::format("cannot make a socket: {}", std::strerror(errno)));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    close(fd);
    return Unavailable(
        fmt::format("cannot connect to 127.0.0.1:{}: {}", port, std::strerror(error)));
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return PollingSocket(fd);
}

PollingSocket::~PollingSocket() {
  if (fd_ >= 0) close(fd_);
}

PollingSocket::PollingSocket(PollingSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)),
      begin_(other.begin_),
      end_(other.end_) {}

Status PollingSocket::Send(std::string_view request) {
  Patience patience;
  while (!request.empty()) {
    const ssize_t sent = send(fd_, request.data(), request.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      request.remove_prefix(static_cast<size_t>(sent));
    } else if (!WouldBlock(errno)) {
      return Unavailable(fmt::format("sending a request: {}", std::strerror(errno)));
    } else {
      RETURN_IF_ERROR(patience.Wait("sending a request"));
    }
  }
  return OkStatus();
}

Status PollingSocket::MakeRoom() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (end_ == buffer_.size()) {
    if (begin_ == 0) return DataLoss("a reply has an element larger than the receive buffer");
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return OkStatus();
}

Status PollingSocket::Receive(ReplyParser& parser) {
  Patience patience;
  while (true) {
    if (begin_ < end_) {
      const auto taken = parser.Take({buffer_.data() + begin_, end_ - begin_});
      if (!taken.ok()) return taken.status();
      begin_ += *taken;
    }
    if (parser.done()) return OkStatus();
    RETURN_IF_ERROR(MakeRoom());
    const ssize_t got = recv(fd_, buffer_.data() + end_, buffer_.size() - end_, MSG_DONTWAIT);
    if (got > 0) {
      end_ += static_cast<size_t>(got);
    } else if (got == 0) {
      return Unavailable("the server closed the connection");
    } else if (!WouldBlock(errno)) {
      return Unavailable(fmt::format("reading a reply: {}", std::strerror(errno)));
    } else {
      RETURN_IF_ERROR(patience.Wait("reading a reply"));
    }
  }
}

}  // namespace engram::bench
