#include "common/net/tcp/stream.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace engram::net {
namespace {

void SetInt(int fd, int level, int name, int value) {
  ::setsockopt(fd, level, name, &value, sizeof(value));
}

}  // namespace

void TcpStream::SetNoDelay() { SetInt(fd(), IPPROTO_TCP, TCP_NODELAY, 1); }

void TcpStream::SetOptions(Nanos peer_timeout) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(peer_timeout).count();
  SetNoDelay();
  SetInt(fd(), IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(ms));
  SetInt(fd(), SOL_SOCKET, SO_KEEPALIVE, 1);
  const int quarter = std::max(1, static_cast<int>(ms / 4000));  // s
  SetInt(fd(), IPPROTO_TCP, TCP_KEEPIDLE, quarter);
  SetInt(fd(), IPPROTO_TCP, TCP_KEEPINTVL, quarter);
  SetInt(fd(), IPPROTO_TCP, TCP_KEEPCNT, 3);
}

Status TcpStream::StartTls(const Security& security, bool dials) {
  if (!security.tls()) return OkStatus();
  ASSIGN_OR_RETURN(tls_, TlsSession::Make(security, fd(), dials));
  return OkStatus();
}

bool TcpStream::peer_has_closed() const {
  tcp_info info = {};
  socklen_t bytes = sizeof(info);
  return ::getsockopt(fd(), IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 &&
         info.tcpi_state != TCP_ESTABLISHED;
}

TlsSession::Step TcpStream::HandshakeTls() {
  if (tls_ == nullptr) return TlsSession::Step::kDone;
  const TlsSession::Step step = tls_->Handshake();
  if (step == TlsSession::Step::kFailed) Ended(tls_->why());
  return step;
}

ssize_t TcpStream::Ended(Status why) {
  if (why_.ok()) why_ = std::move(why);
  return -1;
}

ssize_t TcpStream::Receive(std::span<std::byte> into) {
  if (tls_ != nullptr) {
    const ssize_t bytes = tls_->Receive(into);
    return bytes < 0 ? Ended(tls_->why()) : bytes;
  }
  const ssize_t bytes = ::recv(fd(), into.data(), into.size(), MSG_DONTWAIT);
  if (bytes > 0) return bytes;
  if (bytes == 0) return Ended(Unavailable("the peer closed the connection"));
  if (errno == EAGAIN || errno == EINTR) return 0;
  return Ended(Unavailable(fmt::format("receiving: {}", std::strerror(errno))));
}

ssize_t TcpStream::Send(std::span<const iovec> pieces) {
  if (tls_ != nullptr) {
    const ssize_t bytes = tls_->Send(pieces);
    return bytes < 0 ? Ended(tls_->why()) : bytes;
  }
  msghdr message = {};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  const ssize_t bytes = ::sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (bytes >= 0) return bytes;
  if (errno == EAGAIN || errno == EINTR) return 0;
  return Ended(Unavailable(fmt::format("sending: {}", std::strerror(errno))));
}

}  // namespace engram::net
