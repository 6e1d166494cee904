// Addresses of sockets as configurations and ready lines write them: "host:port" or "[v6]:port".
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"

namespace engram::io {

struct HostPort {
  std::string host;
  uint16_t port = 0;
};

// INVALID_ARGUMENT quotes the text.
Result<HostPort> ParseHostPort(const std::string& text);
// As ParseHostPort takes it: a v6 address in brackets.
std::string FormatHostPort(const std::string& host, uint16_t port);

}  // namespace engram::io
