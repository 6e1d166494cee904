// A connected, non-blocking TCP socket, with TLS or without: what data sockets and the client's
// control connection move bytes with. Internal to common/net.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "common/base/clock.h"
#include "common/base/owned_fd.h"
#include "common/base/status.h"
#include "common/net/tcp/security.h"
#include "common/net/tcp/tls.h"

namespace engram::net {

class TcpStream {
 public:
  TcpStream() = default;                   // none
  explicit TcpStream(int fd) : fd_(fd) {}  // takes the descriptor

  int fd() const { return fd_.get(); }
  // Small messages leave at once; SetOptions includes it.
  void SetNoDelay();
  // No delay; a peer whose host vanished, or that takes no bytes, is given up after about
  // `peer_timeout`.
  void SetOptions(Nanos peer_timeout);

  // TLS, if `security` has it, comes before anything else is sent or received.
  Status StartTls(const Security& security, bool dials);
  TlsSession::Step HandshakeTls();
  // A key both ends of this TLS connection derive, and no other connection's; "" without TLS.
  std::string TlsChannel() const { return tls_ == nullptr ? "" : tls_->Channel(); }

  // Bytes moved; 0: none for now; -1: the connection is over, why() says how.
  ssize_t Receive(std::span<std::byte> into);
  ssize_t Send(std::span<const iovec> pieces);
  const Status& why() const { return why_; }
  // The peer has closed or reset its side, though bytes it sent before may not be read yet.
  bool peer_has_closed() const;
  // There may be decrypted bytes to Receive that no event will announce.
  bool may_have_more() const { return tls_ != nullptr && tls_->may_have_more(); }

 private:
  ssize_t Ended(Status why);

  OwnedFd fd_;
  std::unique_ptr<TlsSession> tls_;
  Status why_;
};

}  // namespace engram::net
