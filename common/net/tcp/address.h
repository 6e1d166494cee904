// A TCP transport's address: "tcp <id>", and of one that listens "tcp <id> <host> <port>".
// Internal to common/net.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"
#include "common/net/tcp/challenge.h"

namespace engram::net {

inline constexpr char kAnyHost[] = "*";  // of one that listens on every address

struct TcpAddress {
  EndpointId id{};
  std::string host;   // empty: dials only
  uint16_t port = 0;  // 0: dials only
};

std::string FormatTcpAddress(const TcpAddress& address);
// INVALID_ARGUMENT quotes what is not one.
Result<TcpAddress> ParseTcpAddress(const std::string& text);

}  // namespace engram::net
