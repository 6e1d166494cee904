// The default wire: framed TCP sockets of our own, authenticated by a mutual challenge
// (challenge.h) before a frame is read, with TLS when security.h says so. Any network, any
// stranger: bytes that are not ours end their own connection and nothing else.
//
// The side with a listen host accepts, the other dials. Connect with the address of an acceptor
// dials it, blocking for at most connect_timeout. Connect with the address of a dialer expects that
// dialer, and reports it lost unless it arrives within the same time. Until then Send is
// UNAVAILABLE.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/net/tcp/security.h"
#include "common/net/transport.h"

namespace engram::net {

struct TcpOptions {
  std::string listen_host;                   // empty: dials only
  uint16_t listen_port = 0;                  // 0 picks one
  std::shared_ptr<const Security> security;  // null: no secret, no TLS
  Nanos connect_timeout = std::chrono::seconds(5);
  // A connection that the peer's host acknowledges nothing on for so long is lost, and dialled
  // anew. Kept, it would be silent for as long again as the outage was: TCP doubles the time
  // between tries.
  Nanos peer_timeout = std::chrono::seconds(2);
};

// ALREADY_EXISTS when the port is taken, UNAVAILABLE for a host that is not one of ours.
Result<std::unique_ptr<Transport>> MakeTcpTransport(const TcpOptions& options);

// An acceptor that listens everywhere has an address without a host: this puts in the one its
// control connection was reached at. Any other address comes back as it is.
std::string WithHost(const std::string& address, const std::string& host);

}  // namespace engram::net
