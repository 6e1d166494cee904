// Chooses the waiting connection that gives way to a newcomer when places run out. Strangers cannot
// keep others out: an address has at most its share, the address that holds the most gives way
// first, and some places are for clients of this host. Internal to common/net.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/base/clock.h"

namespace engram::net {

// Whose connections count together: an IPv4 address, a /64 network of IPv6.
struct PeerAddress {
  uint64_t network = 0;
  bool loopback = true;  // also of a socket that is not of the internet
  auto operator<=>(const PeerAddress&) const = default;
};
PeerAddress PeerAddressOf(int fd);

struct Occupant {
  PeerAddress address;
  int rank = 0;  // the lowest give way first; below 0: not at all
  TimePoint waits_since;
};

inline constexpr size_t kAddressShare = 4;   // an address that is not loopback leaves 1 of so many
inline constexpr size_t kLoopbackShare = 8;  // all of them together leave 1 of so many to loopback

struct Place {
  bool given = false;
  std::optional<size_t> leaves;  // the occupant that must
};
// Among the occupants of the lowest rank the address that holds the most gives way, with its
// longest waiting.
Place FindPlace(std::span<const Occupant> occupants, const PeerAddress& newcomer, size_t places);
// The one that gives way when descriptors have run out.
std::optional<size_t> FirstToLeave(std::span<const Occupant> occupants);

// A listener has a connection to accept; or bytes have come.
bool IsReadable(int fd);

// How many descriptors the process may open; raises that number first, if it may.
size_t DescriptorsMax();

}  // namespace engram::net
