#include "common/net/tcp/address.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <string_view>
#include <vector>

namespace engram::net {
namespace {

constexpr std::string_view kScheme = "tcp";
constexpr size_t kHostBytesMax = 253;  // of a DNS name

template <typename T>
bool ParseNumber(std::string_view text, int base, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

bool ParseId(std::string_view text, EndpointId& id) {
  if (text.size() != 2 * id.size()) return false;
  for (size_t i = 0; i < id.size(); ++i) {
    if (!ParseNumber(text.substr(2 * i, 2), 16, id[i])) return false;
  }
  return true;
}

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  while (words.size() < 5) {
    const size_t space = text.find(' ');
    words.push_back(text.substr(0, space));
    if (space == std::string_view::npos) break;
    text.remove_prefix(space + 1);
  }
  return words;
}

}  // namespace

std::string FormatTcpAddress(const TcpAddress& address) {
  std::string text(kScheme);
  text += ' ';
  for (const uint8_t byte : address.id) text += fmt::format("{:02x}", byte);
  if (address.port != 0) text += fmt::format(" {} {}", address.host, address.port);
  return text;
}

Result<TcpAddress> ParseTcpAddress(const std::string& text) {
  const std::vector<std::string_view> words = Words(text);
  TcpAddress address;
  bool good = (words.size() == 2 || words.size() == 4) && words[0] == kScheme &&
              ParseId(words[1], address.id);
  if (good && words.size() == 4) {
    address.host = words[2];
    good = !address.host.empty() && address.host.size() <= kHostBytesMax &&
           ParseNumber(words[3], 10, address.port) && address.port != 0;
  }
  if (good) return address;
  return InvalidArgument(fmt::format("\"{}\" is no address of a TCP transport",
                                     std::string_view(text).substr(0, 2 * kHostBytesMax)));
}

}  // namespace engram::net
