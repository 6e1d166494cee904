// TLS 1.3 over a non-blocking socket that TcpStream owns: its half that talks to OpenSSL. Internal
// to common/net.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "common/base/status.h"
#include "common/net/tcp/security.h"

struct ssl_st;  // OpenSSL's SSL

namespace engram::net {

class TlsSession {
 public:
  // What is awaited before the same call is worth repeating.
  enum class Step { kDone, kReads, kWrites, kFailed };

  // RESOURCE_EXHAUSTED without memory.
  static Result<std::unique_ptr<TlsSession>> Make(const Security& security, int fd, bool dials);
  ~TlsSession();

  Step Handshake();
  // Bytes moved; 0: none for now; -1: the connection is over, why() says how.
  ssize_t Receive(std::span<std::byte> into);
  ssize_t Send(std::span<const iovec> pieces);
  const Status& why() const { return why_; }
  // The last Receive gave bytes: there may be more, which no event will announce.
  bool may_have_more() const { return may_have_more_; }
  // A key both ends of this connection derive, and no other connection's.
  std::string Channel() const;

 private:
  TlsSession() = default;
  void HearLastWord();
  ssize_t Outcome(int returned, std::string_view what);
  std::span<const std::byte> NextRecord(std::span<const iovec> pieces);

  ssl_st* tls_ = nullptr;
  std::unique_ptr<std::byte[]> record_;  // small pieces joined
  uint64_t records_ = 0;                 // sent
  bool may_have_more_ = true;
  Status why_;
};

}  // namespace engram::net
