// Opening a listening TCP socket with Asio, with errors a person can act on. Internal to
// common/net.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <string>

#include "common/base/status.h"

namespace engram::net {

// Binds `acceptor` to host:port and listens. ALREADY_EXISTS when the port is taken, UNAVAILABLE
// when the host cannot be bound; both name the address. `what` is what the port is for, e.g.
// "control".
Status Listen(boost::asio::ip::tcp::acceptor& acceptor, const std::string& host, uint16_t port,
              std::string_view what);

}  // namespace engram::net
