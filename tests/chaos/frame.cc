#include "tests/chaos/frame.h"

#include <cstdint>

namespace engram::chaos {
namespace {

constexpr size_t kEthernetBytes = 14;
constexpr size_t kIpBytesMin = 20;
constexpr size_t kTcpBytesMin = 20;
constexpr size_t kChecksumAt = 16;  // in the TCP header

unsigned ByteAt(std::span<const std::byte> bytes, size_t at) {
  return std::to_integer<unsigned>(bytes[at]);
}
unsigned WordAt(std::span<const std::byte> bytes, size_t at) {
  return ByteAt(bytes, at) << 8 | ByteAt(bytes, at + 1);
}

// RFC 1624, equation 3.
unsigned Adjusted(unsigned checksum, unsigned old_word, unsigned new_word) {
  unsigned sum = (~checksum & 0xffff) + (~old_word & 0xffff) + new_word;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

}  // namespace

bool FlipCarriedByte(std::span<std::byte> frame, Rng& rng) {
  if (frame.size() < kEthernetBytes + kIpBytesMin + kTcpBytesMin) return false;
  constexpr unsigned kIpV4 = 0x0800, kTcp = 6;
  if (WordAt(frame, 12) != kIpV4) return false;
  const std::span<std::byte> ip = frame.subspan(kEthernetBytes);
  const size_t ip_header = (ByteAt(ip, 0) & 0x0f) * 4, ip_bytes = WordAt(ip, 2);
  if (ByteAt(ip, 9) != kTcp || ip_bytes > ip.size() || ip_bytes < ip_header + kTcpBytesMin) {
    return false;
  }
  const std::span<std::byte> tcp = ip.subspan(ip_header, ip_bytes - ip_header);
  const size_t tcp_header = (ByteAt(tcp, 12) >> 4) * 4;
  if (tcp_header < kTcpBytesMin || tcp_header >= tcp.size()) return false;

  const size_t at = tcp_header + rng.NextBelow(tcp.size() - tcp_header);
  const size_t word = at & ~size_t{1};
  const auto whole = [&] {  // a last odd byte counts as a word with zeros behind it
    return word + 1 < tcp.size() ? WordAt(tcp, word) : ByteAt(tcp, word) << 8;
  };
  const unsigned before = whole();
  tcp[at] ^= static_cast<std::byte>(1 + rng.NextBelow(255));
  const unsigned checksum = Adjusted(WordAt(tcp, kChecksumAt), before, whole());
  tcp[kChecksumAt] = static_cast<std::byte>(checksum >> 8);
  tcp[kChecksumAt + 1] = static_cast<std::byte>(checksum & 0xff);
  return true;
}

}  // namespace engram::chaos
