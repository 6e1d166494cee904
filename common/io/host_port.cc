#include "common/io/host_port.h"

#include <fmt/format.h>

#include <charconv>

namespace engram::io {

std::string FormatHostPort(const std::string& host, uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
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

}  // namespace engram::io
